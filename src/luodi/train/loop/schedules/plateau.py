"""Down whenever checks stop getting better."""

from __future__ import annotations

from math import inf, isfinite
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from luodi.train.loop.ramp import ramp
from luodi.train.loop.slots import Checks, Schedule


class Plateau(Schedule):
    """The learning rate falls when `patience` checks in a row brought nothing better, then waits for the next ones.

    A function of the checks so far alone, so that a training that goes on after a kill has the same rates.
    """

    checks: ClassVar[bool] = True

    watch: Literal["loss", "metric"] = "loss"  # on the validation split; metric: the main one
    patience: Annotated[int, Field(ge=0)] = 2  # checks without a better one that are borne
    times: Annotated[float, Field(gt=0, lt=1)] = 0.1  # what the rate is multiplied with at each fall
    cooldown: Annotated[int, Field(ge=0)] = 0  # checks after a fall that do not count
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of the rate below which it does not fall
    least: Annotated[float, Field(ge=0)] = 1e-4  # of the best value: a smaller gain is none
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of all updates over which the rate rises from 0

    def factor(self, step: int, total: int, checks: Checks = ()) -> float:
        return ramp(step, total, self.warmup)[0] * max(self.floor, self.times ** self.fallen(checks))

    def fallen(self, checks: Checks) -> int:
        """How often the rate has fallen after these checks."""
        best, bad, waiting, falls = inf, 0, 0, 0
        for check in checks:
            value = check.loss if self.watch == "loss" else -check.score
            if value < (best - self.least * abs(best) if isfinite(best) else best):
                best, bad = value, 0
            else:
                bad += 1
            if waiting:
                waiting, bad = waiting - 1, 0
            if bad > self.patience:
                falls, waiting, bad = falls + 1, self.cooldown, 0
        return falls
