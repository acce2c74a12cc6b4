"""Random changes of brightness, contrast, saturation and hue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.train.loop.augments.drawing.draw import a_row, between, chosen, where
from luodi.train.loop.slots import Augment

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Colour(Augment):
    """Changes brightness, contrast, saturation and hue of each image at random, in this order.

    Images arrive normalised, so all four are told without a unit: brightness in shares of the image's own spread (the
    deviation over all pixels and channels), contrast and saturation as factors, hue as an angle around the grays.
    Nothing is clipped. Saturation and hue are those of three channels: gray images have none and take no notice. Each
    image takes five draws.
    """

    brightness: Annotated[float, Field(ge=0, le=4)] = 0.3  # 0.3: moves by up to 0.3 of the spread, up or down
    contrast: Annotated[float, Field(ge=0, le=4)] = 0.3  # 0.3: from 1 / 1.3 to 1.3 times, around each channel's mean
    saturation: Annotated[float, Field(ge=0, le=4)] = 0.3  # 0.3: from 1 / 1.3 to 1.3 times as far from gray
    hue: Annotated[float, Field(ge=0, le=180)] = 0.0  # degrees; 120 makes red green
    share: Annotated[float, Field(ge=0, le=1)] = 1.0  # of the images

    def apply(self, values: Tensor, generator: Generator) -> Tensor:
        """`values` (batch, channels, height, width), any float type."""
        count = len(values)
        bright, contrast, saturation, hue = (between(count, -1, 1, generator) for _ in range(4))
        mask, changed = chosen(count, self.share, generator), values
        if self.brightness:
            changed = brightened(changed, bright * self.brightness)
        if self.contrast:
            changed = contrasted(changed, (1 + self.contrast) ** contrast)
        if self.saturation:
            changed = saturated(changed, (1 + self.saturation) ** saturation)
        if self.hue:
            changed = hue_turned(changed, hue * self.hue)
        return where(mask, changed, values)


def brightened(values: Tensor, amounts: Tensor) -> Tensor:
    """Each image moved by `amounts` (batch,) times its own spread."""
    return values + a_row(amounts, values) * values.std((1, 2, 3), correction=0, keepdim=True)


def contrasted(values: Tensor, factors: Tensor) -> Tensor:
    """Each pixel `factors` (batch,) times as far from its channel's mean: the same whatever the normalisation."""
    mean = values.mean((2, 3), keepdim=True)
    return mean + (values - mean) * a_row(factors, values)


def saturated(values: Tensor, factors: Tensor) -> Tensor:
    """Each pixel of three channels `factors` (batch,) times as far from its gray, the mean of the channels."""
    if values.shape[1] != 3:
        return values
    gray = values.mean(1, keepdim=True)
    return gray + (values - gray) * a_row(factors, values)


def hue_turned(values: Tensor, degrees: Tensor) -> Tensor:
    """Three channels turned around the grays by `degrees` (batch,): a pixel's gray and its distance from it stay."""
    if values.shape[1] != 3:
        return values
    angle = degrees.deg2rad()
    turned, aside = a_row(angle.cos(), values), a_row(angle.sin() / 3**0.5, values)
    gray = values.mean(1, keepdim=True)
    return gray + (values - gray) * turned + (values.roll(1, 1) - values.roll(-1, 1)) * aside
