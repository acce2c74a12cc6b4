"""Learning rates by name."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field

from luodi.core.errors import LuodiError
from luodi.train.loop.slots import Scope


class Named(Scope):
    """Stages by pattern (`blocks.*`), each with what its learning rate is multiplied with; 0 freezes.

    The first pattern that fits counts; what none fits learns at `others`. Raises LuodiError for a pattern that fits
    nothing.
    """

    rate: dict[str, Annotated[float, Field(ge=0)]]  # pattern -> factor
    others: Annotated[float, Field(ge=0)] = 1.0

    def rates(self, stages: Sequence[str], epoch: int) -> list[float]:
        for pattern in self.rate:
            if not any(fnmatchcase(stage, pattern) for stage in stages):
                raise LuodiError(f"learn: named: {pattern!r} fits no stage; there are: {', '.join(stages)}")
        found = [
            next((rate for pattern, rate in self.rate.items() if fnmatchcase(stage, pattern)), self.others)
            for stage in stages
        ]
        if not any(found):
            raise LuodiError("learn: named: every stage has a rate of 0, so nothing would learn")
        return found
