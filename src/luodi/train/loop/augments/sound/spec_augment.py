"""SpecAugment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from luodi.train.loop.augments.drawing.draw import between, chosen, where
from luodi.train.loop.augments.hearing.vocoder import paced, sound, spectrum
from luodi.train.loop.augments.hearing.warp import read_between, warped_places
from luodi.train.loop.slots import Augment

if TYPE_CHECKING:
    from torch import Generator, Tensor


class SpecAugment(Augment):
    """Warps time, and silences random bands of frequency and stretches of time (arXiv 1904.08779).

    A moment of each sound moves by up to the stated share of its time; what lies before and after is stretched and
    squeezed at the same pitch. Each mask is up to the stated share wide, and may be nothing. Spectra (batch, bands,
    frames) are changed as they are, frames of the warp read between two; samples (batch, samples) are taken to a
    spectrum, warped by a phase vocoder, masked, and back. Each sound takes two draws a mask and three more.
    """

    kind: ClassVar[Literal["image", "sound"]] = "sound"

    warp: Annotated[float, Field(ge=0, lt=0.5)] = 0.05  # of the whole time, that a moment moves at most
    bands: Annotated[float, Field(ge=0, le=1)] = 0.25  # of all bands, a mask at most
    num_bands: Annotated[int, Field(ge=0, le=20)] = 2  # masks
    time: Annotated[float, Field(ge=0, le=1)] = 0.1  # of the whole time, a mask at most
    num_times: Annotated[int, Field(ge=0, le=20)] = 2  # masks
    fill: Literal["zero", "mean"] = "zero"  # what masked places hold; mean: of the spectrum (samples: always zero)
    window: Literal[128, 256, 512, 1024, 2048] = 512  # samples of a frame, for samples: 32 ms at 16 kHz
    share: Annotated[float, Field(ge=0, le=1)] = 1.0  # of the sounds

    def apply(self, values: Tensor, generator: Generator) -> Tensor:
        """`values` (batch, samples) or (batch, bands, frames), any float type."""
        frames = spectrum(values, self.window) if values.ndim == 2 else values
        hidden = self._hidden(frames, generator)
        places = warped_places(len(values), frames.shape[2], self.warp, generator)
        mask = chosen(len(values), self.share, generator)
        if not mask.any():
            return values
        if self.warp and values.ndim == 2:
            frames = paced(frames, places.to(frames.device), self.window).to(frames.dtype)
        elif self.warp:
            frames = read_between(frames, places)
        if values.ndim == 2:
            return where(mask, sound(frames.masked_fill(hidden, 0), self.window, values.shape[1]), values)
        fill = frames.mean((1, 2), keepdim=True) if self.fill == "mean" else frames.new_zeros(())
        return where(mask, fill.where(hidden, frames), values)

    def _hidden(self, frames: Tensor, generator: Generator) -> Tensor:
        """bool (batch, bands, frames): what is silenced."""
        import torch

        count, num_bands, num_frames = frames.shape
        hidden = torch.zeros(frames.shape, dtype=torch.bool, device=frames.device)
        for _ in range(self.num_bands):
            hidden |= _stretch(count, num_bands, self.bands, generator).to(frames.device)[:, :, None]
        for _ in range(self.num_times):
            hidden |= _stretch(count, num_frames, self.time, generator).to(frames.device)[:, None, :]
        return hidden


def _stretch(count: int, length: int, most: float, generator: Generator) -> Tensor:
    """bool (count, length): a run of 0 to `most` of the length, at a random place."""
    import torch

    wide = (between(count, 0, 1, generator) * (int(most * length) + 1)).long()
    start = (between(count, 0, 1, generator) * (length - wide + 1)).long()
    at = torch.arange(length)
    return (at >= start[:, None]) & (at < (start + wide)[:, None])
