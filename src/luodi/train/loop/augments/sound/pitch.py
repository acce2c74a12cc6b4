"""Random pitch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from luodi.train.loop.augments.drawing.draw import between, chosen
from luodi.train.loop.augments.hearing.resample import resampled, samples_of
from luodi.train.loop.augments.hearing.vocoder import stretched
from luodi.train.loop.slots import Augment

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Pitch(Augment):
    """Makes each sound higher or lower at the same pace: stretched by a phase vocoder, then played that much faster.

    The length stays. Each sound takes two draws.
    """

    kind: ClassVar[Literal["image", "sound"]] = "sound"

    semitones: Annotated[float, Field(ge=0, le=24)] = 2.0  # up or down; 12 is an octave
    window: Literal[256, 512, 1024, 2048, 4096] = 1024  # samples of the vocoder's frames: 64 ms at 16 kHz
    share: Annotated[float, Field(ge=0, le=1)] = 1.0  # of the sounds

    def apply(self, values: Tensor, generator: Generator) -> Tensor:
        """`values` (batch, samples), any float type; raises LuodiError for spectra."""
        values = samples_of(values, "pitch")
        factors = 2 ** (between(len(values), -1, 1, generator) * self.semitones / 12)
        rows = chosen(len(values), self.share, generator).nonzero().flatten()
        if not len(rows) or not self.semitones:
            return values
        found, there = values.clone(), rows.to(values.device)
        longer = stretched(values[there], factors[rows], self.window)
        found[there] = resampled(longer, factors[rows], values.shape[1])
        return found
