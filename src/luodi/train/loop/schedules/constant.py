"""One learning rate throughout."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from luodi.train.loop.slots import Schedule


class Constant(Schedule):
    """The same learning rate throughout, after a warm-up if one is asked for."""

    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of all updates over which the rate rises from 0

    def factor(self, step: int, total: int) -> float:
        rising = round(self.warmup * total)
        return (step + 1) / rising if step < rising else 1.0
