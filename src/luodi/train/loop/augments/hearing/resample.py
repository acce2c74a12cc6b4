"""Sound read at another speed."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from luodi.core.errors import LuodiError

if TYPE_CHECKING:
    from torch import Tensor

CROSSINGS = 16  # of the sinc on each side: a sine up to 0.8 of what can be held comes out within 0.002


def resampled(values: Tensor, speeds: Tensor, length: int) -> Tensor:
    """(batch, length): sample t reads `values` (batch, samples) at t * speed; beyond the ends is silence.

    A sinc under a Hann window; faster than 1 the sinc is widened, so that what cannot be held any more is taken out
    first. `speeds` float64 (batch,), above 0.
    """
    import torch

    speeds = speeds.to(values.device, torch.float64)[:, None]
    places = torch.arange(length, device=values.device, dtype=torch.float64) * speeds
    whole, cut = places.floor(), (1 / speeds).clamp(max=1)
    reach = ceil(CROSSINGS / float(cut.min()))
    found = torch.zeros(places.shape, device=values.device, dtype=torch.float64)
    for offset in range(1 - reach, reach + 1):
        at = whole + offset
        away = (places - at) * cut
        weight = cut * torch.sinc(away) * (torch.cos(away * (torch.pi / CROSSINGS)) + 1) / 2
        weight = weight * ((away.abs() < CROSSINGS) & (at >= 0) & (at < values.shape[1]))
        found += weight * values.gather(1, at.long().clamp(0, values.shape[1] - 1))
    return found.to(values.dtype)


def samples_of(values: Tensor, name: str) -> Tensor:
    """`values` if they are samples (batch, samples); raises LuodiError for spectra, which have no speed to change."""
    if values.ndim != 2:
        raise LuodiError(f"{name} changes sound as samples (batch, samples), and this input is {tuple(values.shape)}")
    return values
