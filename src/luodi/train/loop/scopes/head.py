"""Frozen features: the output layers alone learn."""

from __future__ import annotations

from collections.abc import Sequence

from luodi.train.loop.slots import Scope


class Head(Scope):
    """The last stage alone learns; all before it is a frozen extractor of features, running statistics included."""

    def rates(self, stages: Sequence[str], epoch: int) -> list[float]:
        return [0.0] * (len(stages) - 1) + [1.0]
