"""Every row once an epoch, in a random order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from luodi.core.run import Run

POOL = 50  # batches among which rows of like length are brought together


@dataclass(frozen=True)
class Shuffled:
    """Every row once an epoch; the order is a function of (seed, scope, epoch) alone."""

    count: int
    run: Run

    def order(self, epoch: int) -> Tensor:
        import torch

        return torch.randperm(self.count, generator=self.run.generator("order", epoch))


@dataclass(frozen=True)
class Bucketed:
    """Every row once an epoch, rows of like length in one batch, the batches in a random order.

    Rows are shuffled, sorted by length among `POOL` batches at a time, and cut into batches of `rows`, which are
    shuffled again; the last batch, if it is smaller, stays last. A function of (seed, scope, epoch) alone.
    """

    sizes: Tensor  # int64 (count,)
    rows: int  # of one batch: of an update, all ranks together
    run: Run

    @property
    def count(self) -> int:
        return len(self.sizes)

    def order(self, epoch: int) -> Tensor:
        import torch

        shuffled = torch.randperm(self.count, generator=self.run.generator("order", epoch))
        pools = [pool[self.sizes[pool].argsort(stable=True)] for pool in shuffled.split(self.rows * POOL)]
        batches = list(torch.cat(pools).split(self.rows))
        rest = [batches.pop()] if len(batches[-1]) < self.rows else []
        turns = torch.randperm(len(batches), generator=self.run.generator("batches", epoch)).tolist()
        return torch.cat([batches[turn] for turn in turns] + rest)
