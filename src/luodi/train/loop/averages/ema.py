"""Exponential moving average of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.train.loop.averaging import Averager, RunningAverage
from luodi.train.loop.slots import Average

if TYPE_CHECKING:
    from torch import nn


class EMA(Average):
    """Weights and buffers averaged over the updates, recent ones more (exponential moving average).

    a += (1 - d) * (w - a) after each update, d = min(decay, (1 + n) / (10 + n)) after n updates: at first the average
    reaches back over about a tenth of the training, so that it forgets the random start.
    """

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.999

    def build(self, model: nn.Module) -> Averager:
        def share(done: int, total: int) -> float:
            return 1 - min(self.decay, (1 + done) / (10 + done))

        return RunningAverage(model, share, stale=False)
