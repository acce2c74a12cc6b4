"""One learning rate throughout."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from luodi.train.loop.ramp import ramp
from luodi.train.loop.slots import Checks, Schedule


class Constant(Schedule):
    """The same learning rate throughout, after a warm-up if one is asked for."""

    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of all updates over which the rate rises from 0

    def factor(self, step: int, total: int, checks: Checks = ()) -> float:
        return ramp(step, total, self.warmup)[0]
