"""Linear and convolution layers and tables of vectors whose weight is kept in a store."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from luodi.models.layers.int8_embedding import factor_of
from luodi.models.layers.int8_weight import convolved, take_settings
from luodi.models.layers.stored.stores import Halved, Rounded

Store = Rounded | Halved


class StoredLinear(nn.Module):
    """A linear layer whose weight (out, in) is made a float tensor in the forward."""

    bias: Tensor | None

    def __init__(self, layer: nn.Linear, store: Store) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.store = store
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    @property
    def weight(self) -> Tensor:
        """The weight, for code that reads a layer's `weight`."""
        return self.store()

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.store().to(x.dtype), self.bias)


class StoredConv(nn.Module):
    """A 1-, 2- or 3-dimensional convolution whose weight is made a float tensor in the forward."""

    bias: Tensor | None

    def __init__(self, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, store: Store) -> None:
        super().__init__()
        take_settings(self, layer)
        self.store = store
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    @property
    def weight(self) -> Tensor:
        """The weight, for code that reads a layer's `weight`."""
        return self.store()

    def forward(self, x: Tensor) -> Tensor:
        return convolved(self, x, self.store().to(x.dtype), self.bias)


class StoredEmbedding(nn.Module):
    """A table (rows, width) of which only the rows that are looked up become floats; `times` multiplies them."""

    times: Tensor | None

    def __init__(self, layer: nn.Embedding, store: Store) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = layer.num_embeddings, layer.embedding_dim
        self.store = store
        self.register_buffer("times", factor_of(layer))

    @property
    def weight(self) -> Tensor:
        """The whole table, for code that reads a layer's `weight`; without `times`."""
        return self.store()

    def forward(self, ids: Tensor) -> Tensor:
        rows = self.store.looked_up(ids)
        return rows if self.times is None else rows * self.times


class StoredTied(nn.Module):
    """A linear layer (width -> rows) whose weight is that of a stored table, kept once."""

    bias: Tensor | None

    def __init__(self, layer: nn.Linear, table: StoredEmbedding) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.table = table
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    @property
    def weight(self) -> Tensor:
        """The weight, for code that reads a layer's `weight`."""
        return self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.table.weight.to(x.dtype), self.bias)
