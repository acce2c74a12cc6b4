"""What image libraries do to the 256 tones of a channel, on any scale.

Images arrive normalised, so the darkest and the lightest value of a channel of an image take the places of 0 and 255:
the result is the same whatever each channel was multiplied with and moved by. A channel of one tone stays as it is.

Shapes: values (batch, channels, height, width); settings (batch,).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from luodi.train.loop.augments.drawing.draw import a_row, where

if TYPE_CHECKING:
    from torch import Tensor

TONES = 255.0  # the highest
NARROW = 1e-6  # of the largest value: a range below it is rounding


def posterized(values: Tensor, bits: Tensor) -> Tensor:
    """Tones cut to their first `bits`, 1 to 8; with all 8 of them nothing changes."""
    low, high = _ends(values)
    steps = 2.0 ** (8 - a_row(bits, values).float())
    cut = _scaled(values, (_tones(values, low, high) / steps).floor() * steps, low, high)
    return where(bits < 8, cut, values)


def solarized(values: Tensor, thresholds: Tensor) -> Tensor:
    """Tones from `thresholds`, 0 to 256, on turned into their negatives."""
    import torch

    low, high = _ends(values)
    dark = _tones(values, low, high) < a_row(thresholds, values).float()
    return torch.where(dark | ~_wide(low, high), values, low + high - values)


def equalized(values: Tensor) -> Tensor:
    """Tones spread so that each range of them has about as many pixels, as Pillow counts it."""
    import torch

    low, high = _ends(values)
    tones = _tones(values, low, high).long().flatten(2)
    counts = torch.zeros(*tones.shape[:2], int(TONES) + 1, dtype=torch.int64, device=values.device)
    counts.scatter_add_(2, tones, torch.ones_like(tones))
    # Tone 255 is there: it is what the lightest value became. Below a pixel a tone there is nothing to spread.
    step = (tones.shape[2] - counts[..., -1:]) // int(TONES)
    below = counts.cumsum(2) - counts + step // 2
    spread = (below // step.clamp(min=1)).clamp(max=int(TONES))
    found = spread.gather(2, tones).where(step > 0, tones)
    return _scaled(values, found.reshape(values.shape), low, high)


def autocontrasted(values: Tensor, cut: Tensor) -> Tensor:
    """Tones stretched to the whole range after `cut`, a share of the pixels, is taken off at each of its ends."""
    import torch

    low, high = _ends(values)
    ordered = values.flatten(2).sort(2)[0]
    count = ordered.shape[2]
    off = (a_row(cut, values).double() * count).long().flatten(2).expand(*ordered.shape[:2], 1)
    dark, light = (ordered.gather(2, place)[..., None] for place in (off, (count - 1 - off).clamp(min=0)))
    along = ((values - dark) / (light - dark).where(light > dark, 1)).clamp(0, 1)
    return torch.where((light > dark) & _wide(low, high), low + along * (high - low), values)


def _ends(values: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest value of each channel of each image."""
    return values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)


def _wide(low: Tensor, high: Tensor) -> Tensor:
    return high - low > NARROW * high.abs().maximum(low.abs())


def _tones(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Whole numbers from 0 to 255, as floats."""
    low, high = low.float(), high.float()
    return ((values.float() - low) / (high - low).where(high > low, 1) * TONES).round()


def _scaled(values: Tensor, tones: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Tones back on the scale of `values`."""
    import torch

    return torch.where(_wide(low, high), (low + tones * ((high - low) / TONES)).to(values.dtype), values)
