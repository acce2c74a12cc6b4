"""Random noise on sounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from luodi.train.loop.augments.drawing.draw import a_row, between, chosen, normal_like, where
from luodi.train.loop.slots import Augment

if TYPE_CHECKING:
    from torch import Generator, Tensor


class SoundNoise(Augment):
    """Adds white noise to each sound, so many decibels below it.

    The noise of each sound has exactly its drawn power below the sound's own, whatever the scale; silence stays silent.
    Each sound takes two draws, and one for every sample.
    """

    kind: ClassVar[Literal["image", "sound"]] = "sound"

    decibels: tuple[float, float] = (10.0, 40.0)  # sound over noise: 10 is loud, 40 hardly heard
    share: Annotated[float, Field(ge=0, le=1)] = 1.0  # of the sounds

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.decibels[0] > self.decibels[1]:
            raise ValueError(
                f"`decibels` goes from {self.decibels[0]} to {self.decibels[1]}: the lower one comes first"
            )
        return self

    def apply(self, values: Tensor, generator: Generator) -> Tensor:
        """`values` (batch, samples) or (batch, bands, frames), any float type."""
        below = 10 ** (-between(len(values), *self.decibels, generator) / 20)
        mask = chosen(len(values), self.share, generator)
        if not mask.any():
            return values
        noise, axes = normal_like(values, generator), tuple(range(1, values.ndim))
        power = values.square().mean(axes, keepdim=True) / noise.square().mean(axes, keepdim=True)
        return where(mask, values + noise * power.sqrt() * a_row(below, values), values)
