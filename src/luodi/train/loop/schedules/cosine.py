"""Up a ramp, down half a cosine."""

from __future__ import annotations

from math import cos, pi
from typing import Annotated

from pydantic import Field

from luodi.train.loop.ramp import ramp
from luodi.train.loop.slots import Checks, Schedule


class Cosine(Schedule):
    """The learning rate rises in a short warm-up, then falls along half a cosine (arXiv 1608.03983, one period)."""

    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05  # share of all updates over which the rate rises from 0
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of the rate that is approached at the end

    def factor(self, step: int, total: int, checks: Checks = ()) -> float:
        rise, done, length = ramp(step, total, self.warmup)
        return rise * (self.floor + (1 - self.floor) * 0.5 * (1 + cos(pi * done / length)))
