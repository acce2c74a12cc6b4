"""The first layer of a Transformer: tokens become vectors that know their place."""

from __future__ import annotations

from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn

from luodi.models.layers.positions import sinusoids

Positions = Literal["learned", "rotary", "sinusoidal"]


class Placed(nn.Module):
    """Tokens (batch, time) to vectors (batch, time, width) that know their place, unless that is left to rotation.

    Sinusoids are added to vectors times sqrt(width) (arXiv 1706.03762, 3.4).
    """

    def __init__(self, size: int, width: int, positions: Positions, context: int, dropout: float) -> None:
        super().__init__()
        if positions == "sinusoidal" and width % 2:
            raise ValueError(f"sinusoidal positions need an even width, got {width}")
        self.width, self.positions = width, positions
        self.tokens = table(size, width)
        if positions == "learned":
            self.places = table(context, width)
        self.dropout = nn.Dropout(dropout)

    def begin(self) -> None:
        """First weights beside sinusoids: as large as these once they are multiplied, else places drown the words."""
        if self.positions == "sinusoidal" and not self.tokens.weight.is_meta:
            nn.init.normal_(self.tokens.weight, std=self.width**-0.5)

    def forward(self, tokens: Tensor, places: Tensor) -> Tensor:
        x = self.tokens(tokens)
        if self.positions == "learned":
            x = x + self.places(places)
        elif self.positions == "sinusoidal":
            x = x * sqrt(self.width) + sinusoids(places, self.width).to(x.dtype)
        return self.dropout(x)


def table(rows: int, width: int) -> nn.Embedding:
    """A learned vector for each row, normal of 1 at first. On the meta device nothing is drawn: that would import
    torch's compiler into every process that opens a bundle."""
    weight = torch.empty(rows, width)
    return nn.Embedding.from_pretrained(weight if weight.is_meta else weight.normal_(), freeze=False)


def turning_width(width: int, heads: int, positions: Positions) -> int:
    """The width of a head that is turned, 0 if none is; ValueError if it is odd."""
    if positions != "rotary":
        return 0
    if width // heads % 2:
        raise ValueError(f"rotary positions need heads of even width, got {width // heads}")
    return width // heads
