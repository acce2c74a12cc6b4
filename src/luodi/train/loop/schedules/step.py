"""Down a staircase."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from luodi.train.loop.ramp import ramp
from luodi.train.loop.slots import Checks, Schedule

Share = Annotated[float, Field(gt=0, lt=1)]


class Step(Schedule):
    """The learning rate stands still and falls at once, by the same factor each time.

    `falls`: shares of all updates, as (0.5, 0.75); or one share, and it falls at each multiple of it.
    """

    falls: Share | tuple[Share, ...] = (0.5, 0.75)
    times: Annotated[float, Field(gt=0, lt=1)] = 0.1  # what the rate is multiplied with at each fall
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of all updates over which the rate rises from 0

    def factor(self, step: int, total: int, checks: Checks = ()) -> float:
        if isinstance(self.falls, tuple):
            fallen = sum(step >= round(share * total) for share in self.falls)
        else:
            fallen = step // max(1, round(self.falls * total))
        return ramp(step, total, self.warmup)[0] * self.times**fallen
