"""Gradual unfreezing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from luodi.train.loop.slots import Scope


class Gradual(Scope):
    """The head learns first; every `every` epochs one more stage towards the input joins (arXiv 1801.06146).

    Each stage learns at `decay` of the rate of the one above it.
    """

    steady = False
    every: Annotated[int, Field(ge=1)] = 1  # epochs
    decay: Annotated[float, Field(gt=0, le=1)] = 0.4

    def rates(self, stages: Sequence[str], epoch: int) -> list[float]:
        last = len(stages) - 1
        return [self.decay ** (last - place) * (last - place <= epoch // self.every) for place in range(last + 1)]
