"""Random mirror images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.train.loop.augments.drawing.draw import chosen, where
from luodi.train.loop.slots import Augment

if TYPE_CHECKING:
    from torch import Generator, Tensor

Share = Annotated[float, Field(ge=0, le=1)]


class Flip(Augment):
    """Mirrors a share of the images, left to right and top to bottom.

    No pixel is made or lost, so nothing comes in at the border. Each image takes two draws. Not for what has a side:
    digits, letters, arrows.
    """

    horizontal: Share = 0.5  # of the images: left and right change places
    vertical: Share = 0.0  # of the images: top and bottom change places

    def apply(self, values: Tensor, generator: Generator) -> Tensor:
        """`values` (batch, channels, height, width)."""
        sideways = chosen(len(values), self.horizontal, generator)
        upside_down = chosen(len(values), self.vertical, generator)
        if self.horizontal:
            values = where(sideways, values.flip(-1), values)
        return where(upside_down, values.flip(-2), values) if self.vertical else values
