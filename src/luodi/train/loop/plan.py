"""What a training is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from luodi.core.errors import LuodiError
from luodi.train.loop.audience import Audience
from luodi.train.loop.loading import loaded
from luodi.train.loop.precision import Precision
from luodi.train.loop.scopes.all import All
from luodi.train.loop.slots import Augment, Listener, Objective, Sampler, Schedule, Scope, Update

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
    scope: Scope = field(default_factory=All)
    precision: Precision = "fp32"
    compile: bool = False  # one compiled graph in place of one operation after the other
    workers: int = 0  # processes that read ahead
    audience: Audience = field(default_factory=Audience)  # the listeners of the recipe

    def epochs_in(self, run: Run) -> int:
        return 1 if run.rehearse else self.epochs

    def rate(self, step: int, total: int) -> float:
        """The learning rate of an update."""
        return self.learning_rate * self.schedule.factor(step, total)

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

    def batches(self, examples: Examples, updates: Sequence[Tensor], step: int, run: Run) -> Iterator[list[Pair]]:
        """This rank's part of each update, in pieces of `batch_size`, augmented; `step` is the number of the first."""
        parts = [self.parts(rows, run) for rows in updates]
        stream = loaded(examples, [piece for pieces in parts for piece in pieces], self.workers, run.device)
        for at, pieces in enumerate(parts, step):
            yield [self._augmented(next(stream), at, micro, run) for micro in range(len(pieces))]

    def parts(self, rows: Tensor, run: Run) -> Sequence[Tensor]:
        """The row numbers of this rank's part of an update, in pieces of `batch_size`."""
        if self.accumulate == 1 and run.world == 1:
            return [rows]
        return rows.tensor_split(run.world)[run.rank].split(self.batch_size)

    def _augmented(self, pair: Pair, step: int, micro: int, run: Run) -> Pair:
        """The inputs after every augment; its dice are a function of (seed, scope, augment, update, piece, rank)."""
        if not self.augments:
            return pair
        inputs = dict(pair[0])
        for place, (name, augment) in enumerate(self.augments):
            inputs[name] = augment.apply(inputs[name], run.generator("augment", place, step, micro, run.rank))
        return inputs, pair[1]
