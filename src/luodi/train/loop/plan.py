"""What a training is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from luodi.core.errors import LuodiError
from luodi.train.loop.slots import Augment, Average, Batch, Checks, Listener, Objective, Sampler, Schedule, Update

if TYPE_CHECKING:
    from torch import Tensor

    from luodi.core.run import Run
    from luodi.train.loop.examples import Examples, Pair

REHEARSED = 8  # updates of a rehearsal


@dataclass(frozen=True)
class Plan:
    """The five slots filled, and how much."""

    sampler: Sampler
    objective: Objective
    update: Update
    schedule: Schedule
    augments: tuple[tuple[str, Augment], ...] = ()  # (input, what changes it), in order
    listeners: tuple[Listener, ...] = ()
    epochs: int = 10
    batch_size: int = 64  # rows of one forward
    accumulate: int = 1  # forwards of one update
    learning_rate: float = 1e-3
    clip: float | None = None  # largest norm of an update's whole gradient
    zeros: Literal["keep", "refill"] = "keep"  # whether weights that were pruned stay zero
    average: Average | None = None  # of the weights: what is validated, and what the training ends with

    def epochs_in(self, run: Run) -> int:
        return 1 if run.rehearse else self.epochs

    def rate(self, step: int, total: int, checks: Checks = ()) -> float:
        """The learning rate of an update, after these checks."""
        return self.learning_rate * self.schedule.factor(step, total, checks)

    def updates(self, order: Tensor, run: Run) -> tuple[Tensor, ...]:
        """The row numbers of each update of an epoch, all ranks together.

        With several ranks a last update of fewer rows than ranks is left out.
        """
        cut = order.split(self.batch_size * self.accumulate * run.world)
        if len(cut[-1]) < run.world:
            cut = cut[:-1]
        if not cut:
            raise LuodiError(f"{len(order)} rows cannot be shared among {run.world} processes; use fewer")
        return cut[:REHEARSED] if run.rehearse else cut

    def batches(self, examples: Examples, rows: Tensor, step: int, run: Run) -> list[Pair]:
        """This rank's part of an update, in pieces of `batch_size`, augmented."""
        if self.accumulate == 1 and run.world == 1:
            return [self._augmented(examples.batch(rows), step, 0, run)]
        parts = rows.tensor_split(run.world)[run.rank].split(self.batch_size)
        return [self._augmented(examples.batch(part), step, micro, run) for micro, part in enumerate(parts)]

    def inputs(self, examples: Examples, run: Run) -> Iterator[Batch]:
        """The inputs of the first epoch's batches, the same on every rank: what batch norms' statistics come from."""
        alone = replace(run, rank=0, world=1)
        for step, rows in enumerate(self.updates(self.sampler.order(0), alone)):
            for micro, part in enumerate(rows.split(self.batch_size)):
                yield self._augmented(examples.batch(part), step, micro, alone)[0]

    def _augmented(self, pair: Pair, step: int, micro: int, run: Run) -> Pair:
        """The inputs after every augment; its dice are a function of (seed, scope, augment, update, piece, rank)."""
        if not self.augments:
            return pair
        inputs = dict(pair[0])
        for place, (name, augment) in enumerate(self.augments):
            inputs[name] = augment.apply(inputs[name], run.generator("augment", place, step, micro, run.rank))
        return inputs, pair[1]
