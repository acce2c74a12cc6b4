"""Texts read in both directions: the encoder that classifiers and translators share."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.placed import Placed, Positions, turning_width
from luodi.models.layers.positions import places_of, rotation
from luodi.models.layers.transformer_block import Norm, TransformerBlock, normed


class Reading(nn.Module):
    """A bidirectional Transformer encoder: tokens (batch, time) and a mask, true at real ones, to (batch, time, width).

    What stands at padding is not to be read; `told` (batch, time, width) is added to what the tokens are. Raises
    ValueError for odd head widths with rotary positions.
    """

    def __init__(
        self, size: int, *, layers: int, width: int, heads: int, kv_heads: int | None, context: int,
        positions: Positions, norm: Norm, first: bool, gated: bool, dropout: float, bias: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.placed = Placed(size, width, positions, context, dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                width, heads, kv_heads, causal=False, first=first, norm=norm, gated=gated, dropout=dropout, bias=bias
            )
            for _ in range(layers)
        )
        self.head_width = turning_width(width, heads, positions)
        self.norm = normed(width, norm, 1e-5, bias) if first else nn.Identity()

    def forward(self, tokens: Tensor, mask: Tensor | None, told: Tensor | None = None) -> Tensor:
        places = places_of(tokens, None)
        x = self.placed(tokens, places)
        x = x if told is None else x + told
        turn = rotation(places, self.head_width, 10000.0) if self.head_width else None
        for block in self.blocks:
            x, _ = block(x, turn, mask)
        return self.norm(x)


def texts_in(inputs: dict[str, Spec], model: str) -> dict[str, str | None]:
    """Token input -> its mask input or None, sorted; ValueError if there is no text, or an input of another kind.

    A <name>_part may be beside it.
    """
    texts = sorted(name for name, spec in inputs.items() if spec.kind == "tokens")
    masks = {f"{name}_{end}" for name in texts for end in ("mask", "part")}
    others = [
        f"{name} ({spec.kind})"
        for name, spec in inputs.items()
        if name not in texts and not (name in masks and spec.kind == "mask")
    ]
    if not texts or others:
        raise ValueError(f"{model} takes tokens and their masks (<name>_mask), got {', '.join(others) or 'no tokens'}")
    return {name: f"{name}_mask" if f"{name}_mask" in inputs else None for name in texts}


def pooled(x: Tensor, mask: Tensor | None, how: Literal["mean", "first"]) -> Tensor:
    """(batch, time, width) to (batch, width): the mean over real tokens (0 if there are none), or the first token."""
    if how == "first":
        return x[:, 0]
    if mask is None:
        return x.mean(1)
    weights = mask.to(x.dtype)[..., None]
    # Chosen, not multiplied: what stands at padding may be anything.
    return torch.where(mask[..., None], x, 0.0).sum(1) / weights.sum(1).clamp(min=1.0)
