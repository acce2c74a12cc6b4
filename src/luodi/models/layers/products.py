"""Scaled dot-product attention, fused and written out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Axes: B batch, H heads, K heads of keys and values, G = H / K heads that share one, T queries, S keys, D head width.


class Products(nn.Module):
    """softmax(q k^T / sqrt(D)) v (arXiv 1706.03762), with fewer heads of keys and values than queries if wanted
    (arXiv 2305.13245).

    Takes q (B, H, T, D), k and v (B, K, S, D), a mask (B, S) bool that is true where a key may be looked at; gives
    (B, H, T, D). A query whose keys are all hidden gets their plain mean. `explicit` goes the written-out way and
    keeps the attention (B, H, T, S) in `kept`.
    """

    def __init__(self, *, causal: bool, dropout: float) -> None:
        super().__init__()
        self.causal, self.dropout = causal, dropout
        self.explicit = False
        self.kept: Tensor | None = None

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.explicit:
            return self._written_out(q, k, v, mask)
        groups = q.shape[1] // k.shape[1]
        rate = self.dropout if self.training else 0.0
        bias = None if mask is None else self._bias(mask, q)
        k, v = repeated(k, groups), repeated(v, groups)
        causal = self.causal and mask is None
        return functional.scaled_dot_product_attention(q, k, v, bias, rate, is_causal=causal)

    def extended(self, q: Tensor, k: Tensor, v: Tensor, past: tuple[Tensor, Tensor], held: Tensor) -> Tensor:
        """Causal attention over `past` keys and values (B, K, S, D), the first `held` (B,) of each row, then k and v.

        What is held is never copied: the two products of scores, which are small, are joined instead.
        """
        groups, steps = q.shape[1] // k.shape[1], q.shape[2]
        old, new = past[0].shape[2], k.shape[2]
        scaled = grouped(q * q.shape[-1] ** -0.5, groups)
        far = held_product(scaled, past[0].to(q.dtype).transpose(2, 3))
        near = scaled @ k.transpose(2, 3)
        seen = torch.arange(old, device=q.device) < held[:, None]
        far = torch.where(seen[:, None, None], far, lowest(far))
        near = near.unflatten(2, (groups, steps)) + causal_bias(steps, near)
        weights = torch.cat([far, near.flatten(2, 3)], dim=-1).softmax(-1)
        mixed = held_product(weights[..., :old], past[1].to(q.dtype)) + weights[..., old : old + new] @ v
        if self.explicit:
            self.kept = ungrouped(weights, groups)
        return ungrouped(mixed, groups)

    def _written_out(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        groups, steps = q.shape[1] // k.shape[1], q.shape[2]
        scores = grouped(q * q.shape[-1] ** -0.5, groups) @ k.transpose(2, 3)
        scores = ungrouped(scores, groups)
        if mask is not None:
            scores = scores + self._bias(mask, scores)
        elif self.causal:
            scores = scores + causal_bias(steps, scores)
        weights = scores.softmax(-1)
        self.kept = weights.detach()
        weights = functional.dropout(weights, self.dropout, self.training)
        return ungrouped(grouped(weights, groups) @ v, groups)

    def _bias(self, mask: Tensor, like: Tensor) -> Tensor:
        """What is added to the scores: (B, 1, 1, S), or (B, 1, S, S) of causal attention."""
        bias = torch.zeros_like(mask, dtype=like.dtype).masked_fill(~mask, lowest(like))[:, None, None]
        # The smaller of the two, not their sum, which would be -inf.
        return torch.minimum(bias, causal_bias(mask.shape[1], like)) if self.causal else bias


def held_product(x: Tensor, held: Tensor) -> Tensor:
    """x @ held, both (B, K, ..., ...), where `held` is one layer's part of a cache.

    One product of all rows would first copy that part to put its rows beside each other, which took 3 times as long
    for 8 rows of 512 tokens. A traced graph has no rows to go through.
    """
    if torch.compiler.is_compiling():
        return x @ held
    return torch.stack([row @ part for row, part in zip(x.unbind(), held.unbind(), strict=True)])


def lowest(like: Tensor) -> float:
    """Hides a score. Not -inf, of which a whole row would become NaN."""
    return torch.finfo(like.dtype).min / 2


def causal_bias(steps: int, like: Tensor) -> Tensor:
    """(T, T): 0 up to a query's own place, the lowest number after it."""
    places = torch.arange(steps, device=like.device)
    later = places[None, :] > places[:, None]
    return torch.zeros(steps, steps, dtype=like.dtype, device=like.device).masked_fill(later, lowest(like))


def repeated(x: Tensor, groups: int) -> Tensor:
    """(B, K, S, D) to (B, K * G, S, D), each head G times in a row."""
    return x if groups == 1 else x[:, :, None].expand(-1, -1, groups, -1, -1).flatten(1, 2)


def grouped(x: Tensor, groups: int) -> Tensor:
    """(B, K * G, T, D) to (B, K, G * T, D): queries that share keys beside each other, so that no key is repeated."""
    return x if groups == 1 else x.unflatten(1, (x.shape[1] // groups, groups)).flatten(2, 3)


def ungrouped(x: Tensor, groups: int) -> Tensor:
    """(B, K, G * T, D) to (B, K * G, T, D)."""
    return x if groups == 1 else x.unflatten(2, (groups, x.shape[2] // groups)).flatten(1, 2)
