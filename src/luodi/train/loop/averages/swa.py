"""Equal average of the last weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.train.loop.averaging import Averager, RunningAverage
from luodi.train.loop.slots import Average

if TYPE_CHECKING:
    from torch import nn


class SWA(Average):
    """The plain average of all weights from some share of the training on (arXiv 1803.05407).

    Batch norms' statistics are estimated anew over training batches whenever the average is looked at. Wants a
    learning rate that stays up to the end: `schedule: constant`, or `linear` or `cosine` with a floor.
    """

    start: Annotated[float, Field(ge=0, lt=1)] = 0.75  # share of all updates before the first that counts

    def build(self, model: nn.Module) -> Averager:
        def share(done: int, total: int) -> float:
            counted = done - round(self.start * total)
            return 1 / counted if counted > 0 else 0.0

        return RunningAverage(model, share, stale=True)
