"""The phase vocoder: sound made longer or shorter at the same pitch (Flanagan and Golden 1966, Dolson 1986)."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def spectrum(values: Tensor, window: int) -> Tensor:
    """complex (batch, window // 2 + 1, frames) of `values` (batch, samples): Hann windows, overlapping."""
    import torch

    shape = torch.hann_window(window, device=values.device, dtype=values.dtype)
    return torch.stft(
        values, window, window // 4, window=shape, center=True, pad_mode="constant", return_complex=True
    )  # fmt: skip


def sound(frames: Tensor, window: int, length: int) -> Tensor:
    """(batch, length): the inverse of `spectrum`."""
    import torch

    shape = torch.hann_window(window, device=frames.device, dtype=frames.real.dtype)
    return torch.istft(frames, window, window // 4, window=shape, center=True, length=length)


def stretched(values: Tensor, factors: Tensor, window: int) -> Tensor:
    """(batch, longest): each sound `factors` (batch,) times as long, at the same pitch; after it, silence."""
    import torch

    factors = factors.to(values.device, torch.float64)
    longest = ceil(values.shape[1] * float(factors.max()))
    count = longest // (window // 4) + 1
    places = torch.arange(count, device=values.device, dtype=torch.float64) / factors[:, None]
    return sound(paced(spectrum(values.double(), window), places, window), window, longest).to(values.dtype)


def paced(frames: Tensor, places: Tensor, window: int) -> Tensor:
    """complex (batch, bins, count): frames read at `places` (batch, count), from 0 up, silence after the last.

    Magnitudes are interpolated, and phases go on by what they went on there, from the loudest frame in both
    directions: where it begins, neighbouring bands agree in phase.
    """
    import torch

    before = places.floor()
    frames = torch.nn.functional.pad(frames, (0, max(0, int(before.max()) + 2 - frames.shape[2])))
    here, there = (_read(frames, before.long() + step) for step in (0, 1))
    share = (places - before)[:, None]
    size = here.abs() * (1 - share) + there.abs() * share
    bins = torch.arange(frames.shape[1], device=frames.device, dtype=torch.float64)[:, None]
    pace = 2 * torch.pi * (window // 4) / window * bins
    off = there.angle() - here.angle() - pace
    steps = pace + off - 2 * torch.pi * (off / (2 * torch.pi)).round()
    phase = torch.cat([torch.zeros_like(steps[..., :1]), steps[..., :-1].cumsum(-1)], -1)
    loudest = size.square().sum(1).argmax(-1)[:, None]
    phase = phase - _read(phase, loudest) + _read(here, loudest).angle()
    return torch.polar(size, phase)


def _read(frames: Tensor, at: Tensor) -> Tensor:
    """Frames (batch, bins, frames) at places (batch, count)."""
    return frames.gather(2, at[:, None].expand(-1, frames.shape[1], -1))
