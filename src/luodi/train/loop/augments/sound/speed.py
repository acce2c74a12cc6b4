"""Random speed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from luodi.train.loop.augments.drawing.draw import between, chosen
from luodi.train.loop.augments.hearing.resample import resampled, samples_of
from luodi.train.loop.slots import Augment

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Speed(Augment):
    """Plays each sound faster or slower, and so higher or lower, by resampling (Ko et al., Interspeech 2015).

    The length stays: a faster sound ends in silence, a slower one is cut off. Each sound takes two draws.
    """

    kind: ClassVar[Literal["image", "sound"]] = "sound"

    range: Annotated[float, Field(ge=0, le=3)] = 0.1  # 0.1: from 1 / 1.1 to 1.1 times as fast
    share: Annotated[float, Field(ge=0, le=1)] = 1.0  # of the sounds

    def apply(self, values: Tensor, generator: Generator) -> Tensor:
        """`values` (batch, samples), any float type; raises LuodiError for spectra."""
        values = samples_of(values, "speed")
        speeds = (1 + self.range) ** between(len(values), -1, 1, generator)
        rows = chosen(len(values), self.share, generator).nonzero().flatten()
        if not len(rows) or not self.range:
            return values
        found, there = values.clone(), rows.to(values.device)
        found[there] = resampled(values[there], speeds[rows], values.shape[1])
        return found
