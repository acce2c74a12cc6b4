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
    """

    rise: Share = 0.3  # share of all updates on the way up
    start: Share = 0.04  # share of the rate at the first update
    end: Share = 4e-6  # share of the rate at the last update
    shape: Literal["cosine", "linear"] = "cosine"  # of both ways; the paper's is linear

    def factor(self, step: int, total: int, checks: Checks = ()) -> float:
        top, last = self.rise * total - 1, max(1, total - 1)
        if step <= top:
            return self._between(self.start, 1.0, step / top if top else 1.0)
        return self._between(1.0, self.end, (step - max(top, 0)) / max(last - max(top, 0), 1e-9))

    def _between(self, first: float, second: float, along: float) -> float:
        along = min(along, 1.0)
        done = along if self.shape == "linear" else 0.5 * (1 - cos(pi * along))
        return first + (second - first) * done
