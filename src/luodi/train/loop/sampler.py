"""Every row once an epoch, in a random order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from luodi.core.run import Run


@dataclass(frozen=True)
class Shuffled:
    """Every row once an epoch; the order is a function of (seed, scope, epoch) alone."""

    count: int
    run: Run

    def order(self, epoch: int) -> Tensor:
        import torch

        return torch.randperm(self.count, generator=self.run.generator("order", epoch))
