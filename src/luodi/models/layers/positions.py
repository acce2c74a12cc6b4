"""Where in a sequence a token is: learned, sinusoidal and rotary positions."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

Turn = tuple[Tensor, Tensor]  # cosines and sines, (time, 1, head width) or (batch, time, 1, head width) each


def places_of(tokens: Tensor, start: Tensor | None) -> Tensor:
    """The position of each token (batch, time): (time,) from 0, or (batch, time) from `start` (batch,)."""
    places = torch.arange(tokens.shape[1], device=tokens.device)
    return places if start is None else start[:, None] + places


def sinusoids(places: Tensor, width: int) -> Tensor:
    """(..., width) of integer places (...): sines at even, cosines at odd indices (arXiv 1706.03762, 3.5)."""
    steps = torch.arange(0, width, 2, device=places.device, dtype=torch.float32)
    angles = places[..., None] * torch.exp(steps * (-log(10000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def rotation(places: Tensor, head_width: int, theta: float) -> Turn:
    """Cosines and sines of the angles of a head at these places, (time,) or (batch, time)."""
    pairs = torch.arange(0, head_width, 2, device=places.device, dtype=torch.float32) / head_width
    angles = (places[..., None] * (1.0 / theta**pairs))[..., None, :]
    cosines, sines = angles.cos(), angles.sin()
    return torch.cat([cosines, cosines], dim=-1), torch.cat([-sines, sines], dim=-1)


def turned(x: Tensor, turn: Turn) -> Tensor:
    """Rotary positions (arXiv 2104.09864) put into x (batch, time, heads, head width).

    Pairs are the first half of a head with its second half, as in Llama, not neighbours as in the paper.
    """
    cosines, sines = turn[0].to(x.dtype), turn[1].to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cosines, torch.cat([second, first], dim=-1), sines)
