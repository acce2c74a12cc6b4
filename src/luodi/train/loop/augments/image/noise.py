"""Random noise on images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.train.loop.augments.drawing.draw import chosen, normal_like, where
from luodi.train.loop.slots import Augment

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Noise(Augment):
    """Adds Gaussian noise to each pixel, in shares of the image's own spread.

    The spread is the standard deviation over all pixels and channels, so the same setting means the same whatever the
    images are normalised to; an image of one colour stays as it is. Nothing is clipped.
    """

    deviation: Annotated[float, Field(ge=0, le=10)] = 0.1  # of the noise, in shares of the image's own
    share: Annotated[float, Field(ge=0, le=1)] = 1.0  # of the images

    def apply(self, values: Tensor, generator: Generator) -> Tensor:
        """`values` (batch, channels, height, width), any float type."""
        mask = chosen(len(values), self.share, generator)
        if not self.deviation or not mask.any():
            return values
        return where(mask, noisy(values, self.deviation, generator), values)


def noisy(values: Tensor, deviation: float | Tensor, generator: Generator) -> Tensor:
    """Every image with noise of `deviation` times its own spread; a tensor must fit (batch, 1, 1, 1)."""
    spread = values.std((1, 2, 3), correction=0, keepdim=True)
    return values + normal_like(values, generator) * (spread * deviation)
