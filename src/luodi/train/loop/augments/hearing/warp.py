"""Time warping: a moment of each sound is moved, and what lies before and after it is stretched and squeezed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from luodi.train.loop.augments.drawing.draw import between

if TYPE_CHECKING:
    from torch import Generator, Tensor


def warped_places(count: int, frames: int, most: float, generator: Generator) -> Tensor:
    """float64 (count, frames): where each frame of the result is read, the first and the last ones as before.

    The moment is anywhere but within `most` of the ends, and moves by up to `most`, a share of the whole time below
    0.5, to either side. Two draws a sound.
    """
    last = frames - 1
    reach = most * last
    moment = between(count, 0, 1, generator) * (last - 2 * reach) + reach
    moved = moment + (between(count, 0, 1, generator) * 2 - 1) * reach
    return places_of(moment, moved, frames)


def places_of(moment: Tensor, moved: Tensor, frames: int) -> Tensor:
    """float64 (count, frames): two straight lines, from 0 over (`moved`, `moment`) to the last frame."""
    import torch

    at, last = torch.arange(frames, dtype=torch.float64), frames - 1
    moment, moved = moment[:, None].double(), moved[:, None].double()
    before = at * (moment / moved.clamp(min=1e-9))
    after = last - (last - at) * ((last - moment) / (last - moved).clamp(min=1e-9))
    return torch.where(at <= moved, before, after).clamp(0, last)


def read_between(frames: Tensor, places: Tensor) -> Tensor:
    """Spectra (batch, bands, frames) at `places` (batch, count), straight lines between two frames."""
    places = places.to(frames.device)
    before = places.floor().long().clamp(max=max(frames.shape[2] - 2, 0))
    share = (places - before)[:, None].to(frames.dtype)
    here, there = (
        frames.gather(2, at[:, None].expand(-1, frames.shape[1], -1))
        for at in (before, (before + 1).clamp(max=frames.shape[2] - 1))
    )
    return here + (there - here) * share
