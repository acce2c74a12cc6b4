"""Tables of vectors whose rows are int8, and the output layers that share their weight with one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from luodi.models.layers.int8_dynamic import dynamic_linear
from luodi.models.layers.int8_weight import int8_channels, int8_product


class Int8Embedding(nn.Module):
    """A table of int8 rows (rows, width) and one scale a row (rows, 1): only the rows that are looked up become floats.

    `times` multiplies what is looked up, as some published networks do; None multiplies nothing.
    """

    q: Tensor
    scale: Tensor
    times: Tensor | None

    def __init__(self, layer: nn.Embedding) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = layer.num_embeddings, layer.embedding_dim
        q, scale = int8_channels(layer.weight)
        self.register_buffer("q", q)
        self.register_buffer("scale", scale)
        self.register_buffer("times", factor_of(layer))

    @property
    def weight(self) -> Tensor:
        """The whole table dequantised, for code that reads a layer's `weight`; without `times`."""
        return self.q * self.scale

    def forward(self, ids: Tensor) -> Tensor:
        rows = functional.embedding(ids, self.q) * functional.embedding(ids, self.scale)
        return rows if self.times is None else rows * self.times


class Int8Tied(nn.Module):
    """A linear layer (width -> rows) whose weight is that of an int8 table, stored once: a scale a row is a scale an
    output. `dynamic` multiplies in integers."""

    bias: Tensor | None

    def __init__(self, layer: nn.Linear, table: Int8Embedding, *, dynamic: bool) -> None:
        super().__init__()
        self.in_features, self.out_features, self.dynamic = layer.in_features, layer.out_features, dynamic
        self.table = table
        if dynamic:
            self.arithmetic = "int8"
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    @property
    def weight(self) -> Tensor:
        """The dequantised weight, for code that reads a layer's `weight`."""
        return self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        if self.dynamic:
            return dynamic_linear(x, self.table.q, self.table.scale.flatten(), self.bias)
        return int8_product(x, self.table.q, self.table.scale, self.bias)


def tied_product(x: Tensor, table: nn.Module) -> Tensor:
    """x (..., width) times a table's rows, of floats or of int8: what a tied output layer gives, (..., rows)."""
    if isinstance(table, Int8Embedding):
        return int8_product(x, table.q, table.scale, None)
    assert isinstance(table.weight, Tensor)
    return functional.linear(x, table.weight)


def factor_of(layer: nn.Embedding) -> Tensor | None:
    """What transformers' scaled tables (Gemma's) multiply their rows by; None of a plain table."""
    given = getattr(layer, "embed_scale", None)
    if given is None:
        return None
    return given.detach() if isinstance(given, Tensor) else torch.tensor(float(given), device=layer.weight.device)


def looks_up(layer: nn.Embedding) -> bool:
    """Whether a table gives its rows, times a factor at most: what a kind of its own does is tried on a few rows."""
    if layer.max_norm is not None:  # rows would be shortened where they lie
        return False
    if type(layer) is nn.Embedding:
        return True
    ids = torch.arange(min(4, layer.num_embeddings), device=layer.weight.device)
    factor = factor_of(layer)
    with torch.no_grad():
        rows = layer.weight[ids] if factor is None else layer.weight[ids] * factor.to(layer.weight.dtype)
        return torch.equal(layer(ids), rows)
