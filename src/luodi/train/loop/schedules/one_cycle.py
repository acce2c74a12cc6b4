"""Up to a high rate and down below where it began."""

from __future__ import annotations

from math import cos, pi
from typing import Annotated, Literal

from pydantic import Field

from luodi.train.loop.slots import Checks, Schedule

Share = Annotated[float, Field(gt=0, lt=1)]


class OneCycle(Schedule):
    """The learning rate rises from a low start to the rate itself, then falls far below that start (arXiv 1708.07120).

    `learning_rate` is the highest; the paper takes it large, as `learning_rate: auto` finds it or a few times that.
    Momentum goes the other way (arXiv 1803.09820): from the update's own (its first beta, if it has betas) to a share
    of it at the highest rate, and back. An update without momentum has none to move.
    """

    rise: Share = 0.3  # share of all updates on the way up
    start: Share = 0.04  # share of the rate at the first update
    end: Share = 4e-6  # share of the rate at the last update
    shape: Literal["cosine", "linear"] = "cosine"  # of both ways; the paper's is linear
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.9  # share of the update's at the highest rate; 1: it stands still

    def factor(self, step: int, total: int, checks: Checks = ()) -> float:
        return self._through(self.start, 1.0, self.end, step, total)

    def damping(self, step: int, total: int, checks: Checks = ()) -> float:
        return self._through(1.0, self.momentum, 1.0, step, total)

    def _through(self, first: float, middle: float, last: float, step: int, total: int) -> float:
        """From the first to the middle where the rate is highest, then on to the last."""
        top, end = self.rise * total - 1, max(1, total - 1)
        if step <= top:
            return self._between(first, middle, step / top if top else 1.0)
        return self._between(middle, last, (step - max(top, 0)) / max(end - max(top, 0), 1e-9))

    def _between(self, first: float, second: float, along: float) -> float:
        along = min(along, 1.0)
        done = along if self.shape == "linear" else 0.5 * (1 - cos(pi * along))
        return first + (second - first) * done
