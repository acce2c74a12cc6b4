"""Attention layers: a sequence that looks at itself, or at another."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from luodi.models.layers.positions import Turn, turned
from luodi.models.layers.products import Products

Pair = tuple[Tensor, Tensor]  # keys and values, (batch, kv_heads, time, head width) each


class Attention(nn.Module):
    """Attention of a sequence to itself, with one product for queries, keys and values.

    `kv_heads` below `heads` share keys and values among queries. Takes x (batch, time, width) and gives the same shape,
    and the keys (turned already) and values. `turn` are the rotary angles; `mask` (batch, time) is true at real
    tokens; with `past` the first `held` (batch,) of those keys and values come before x.
    """

    def __init__(
        self, width: int, heads: int, kv_heads: int | None = None, *, causal: bool, bias: bool = True,
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.heads, self.kv_heads = checked_heads(width, heads, kv_heads)
        self.qkv = nn.Linear(width, width + 2 * width // heads * self.kv_heads, bias=bias)
        self.products = Products(causal=causal, dropout=dropout)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(
        self, x: Tensor, turn: Turn | None = None, mask: Tensor | None = None, past: Pair | None = None,
        held: Tensor | None = None,
    ) -> tuple[Tensor, Pair]:  # fmt: skip
        # Heads before time only after the split: so its gradient is one contiguous array.
        together = self.qkv(x).unflatten(2, (self.heads + 2 * self.kv_heads, -1))
        if turn is None:
            q, k, v = together.split([self.heads, self.kv_heads, self.kv_heads], dim=2)
        else:
            both, v = together.split([self.heads + self.kv_heads, self.kv_heads], dim=2)
            q, k = turned(both, turn).split([self.heads, self.kv_heads], dim=2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if past is None:
            mixed = self.products(q, k, v, mask)
        else:
            assert held is not None and self.products.causal and mask is None
            mixed = self.products.extended(q, k, v, past, held)
        return self.out(mixed.transpose(1, 2).flatten(2)), (k, v)


class CrossAttention(nn.Module):
    """Attention of a sequence to another one, its memory.

    `read` turns the memory (batch, source, width) into keys and values, once for all steps of a decoder. The forward
    takes x (batch, time, width), these, and a mask (batch, source) that is true at real tokens.
    """

    def __init__(
        self, width: int, heads: int, kv_heads: int | None = None, *, bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads = checked_heads(width, heads, kv_heads)
        self.q = nn.Linear(width, width, bias=bias)
        self.kv = nn.Linear(width, 2 * width // heads * self.kv_heads, bias=bias)
        self.products = Products(causal=False, dropout=dropout)
        self.out = nn.Linear(width, width, bias=bias)

    def read(self, memory: Tensor) -> Pair:
        """Keys and values of a memory, (batch, kv_heads, source, head width) each."""
        k, v = self.kv(memory).unflatten(2, (2 * self.kv_heads, -1)).chunk(2, dim=2)
        return k.transpose(1, 2), v.transpose(1, 2)

    def forward(self, x: Tensor, memory: Pair, mask: Tensor | None = None) -> Tensor:
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        return self.out(self.products(q, *memory, mask).transpose(1, 2).flatten(2))


def checked_heads(width: int, heads: int, kv_heads: int | None) -> tuple[int, int]:
    """Heads of queries, heads of keys and values; ValueError where they do not divide each other and the width."""
    kept = heads if kv_heads is None else kv_heads
    if min(width, heads, kept) < 1 or width % heads or heads % kept:
        raise ValueError(
            f"heads {heads} must divide the width {width}, and kv_heads {kept} the heads; all are at least 1"
        )
    return heads, kept


def written_out(model: nn.Module) -> nn.Module:
    """A copy of the model on the same weights, whose attention goes the explicit way and keeps its arrays."""
    same = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = deepcopy(model, same)
    for layer in copied.modules():
        if isinstance(layer, Products):
            layer.explicit = True
    return copied


def attention_of(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The attention arrays of a batch by layer: (batch, heads, queries, keys), each query's sum 1.

    Computed again on the explicit path of a copy that shares the weights; the model itself is not touched. Empty for
    a model without attention layers.
    """
    copied = written_out(model).eval()
    with torch.no_grad():
        copied(**batch)
    return {
        name.removesuffix(".products"): layer.kept
        for name, layer in copied.named_modules()
        if isinstance(layer, Products) and layer.kept is not None
    }
