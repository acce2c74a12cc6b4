"""Every weight learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from luodi.train.loop.slots import Scope


class All(Scope):
    """Every weight learns; with `decay` below 1, each stage nearer to the input at that share of the next one's rate.

    Rates that fall towards the input keep what a pretrained network knows of edges and words (arXiv 1801.06146).
    """

    decay: Annotated[float, Field(gt=0, le=1)] = 1.0

    def rates(self, stages: Sequence[str], epoch: int) -> list[float]:
        return [self.decay ** (len(stages) - 1 - place) for place in range(len(stages))]
