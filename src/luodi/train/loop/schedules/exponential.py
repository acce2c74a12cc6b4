"""Down by the same share in the same time."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from luodi.train.loop.ramp import ramp
from luodi.train.loop.slots import Checks, Schedule


class Exponential(Schedule):
    """The learning rate falls by the same share at every update, or at every stair.

    factor = end ** (updates done / all updates), those of the warm-up left out.
    """

    end: Annotated[float, Field(gt=0, lt=1)] = 0.01  # share of the rate that is left after the last update
    stair: Annotated[float, Field(gt=0, lt=1)] | None = None  # share of these updates for which it stands still
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of all updates over which the rate rises from 0

    def factor(self, step: int, total: int, checks: Checks = ()) -> float:
        rise, done, length = ramp(step, total, self.warmup)
        if self.stair is not None:
            done -= done % max(1, round(self.stair * length))
        return rise * self.end ** (done / length)
