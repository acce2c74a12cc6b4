"""How augments draw: a stated number of draws a row, on the CPU, whatever comes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor


def between(count: int, low: float, high: float, generator: Generator) -> Tensor:
    """float64 (count,), uniform from low to high."""
    import torch

    return torch.rand(count, generator=generator, dtype=torch.float64) * (high - low) + low


def chosen(count: int, share: float, generator: Generator) -> Tensor:
    """bool (count,): which rows are changed; `share` 0 is none and 1 all."""
    import torch

    return torch.rand(count, generator=generator) < share


def beta(count: int, alpha: float, generator: Generator) -> Tensor:
    """float64 (count,) from Beta(alpha, alpha): torch draws it from its global generator alone, NumPy does not."""
    import numpy as np
    import torch

    dice = np.random.Generator(np.random.PCG64(_seed(generator)))
    return torch.from_numpy(dice.beta(alpha, alpha, count))


def normal_like(values: Tensor, generator: Generator) -> Tensor:
    """Standard normal numbers of the shape and type of `values`, drawn on its device."""
    import torch

    there = torch.Generator(values.device).manual_seed(_seed(generator))
    dtype = torch.float32 if values.dtype.itemsize < 4 else values.dtype
    return torch.randn(values.shape, generator=there, device=values.device, dtype=dtype).to(values.dtype)


def a_row(numbers: Tensor, values: Tensor) -> Tensor:
    """One number a row (batch,), shaped to act on `values` (batch, ...) and on its device; booleans stay booleans."""
    import torch

    dtype = torch.bool if numbers.dtype == torch.bool else values.dtype
    return numbers.to(values.device, dtype).reshape(-1, *[1] * (values.ndim - 1))


def where(mask: Tensor, changed: Tensor, values: Tensor) -> Tensor:
    """The changed rows where `mask` (batch,) says so, the others bit for bit."""
    import torch

    return changed if mask.all() else torch.where(a_row(mask, values), changed, values)


def _seed(generator: Generator) -> int:
    import torch

    return int(torch.randint(2**62, (), generator=generator))
