"""What a training is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from luodi.core.errors import LuodiError
from luodi.train.loop.audience import Audience
from luodi.train.loop.blending import blended, losses_of
from luodi.train.loop.loading import loaded
from luodi.train.loop.memory.thrift import Thrift
from luodi.train.loop.precision import Precision
from luodi.train.loop.scopes.all import All
from luodi.train.loop.slots import (
    Augment,
    Average,
    Batch,
    Blend,
    Checks,
    Listener,
    Losses,
    Objective,
    Sampler,
    Schedule,
    Scope,
    Update,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.run import Run
    from luodi.train.loop.examples import Examples, Pair, Piece

REHEARSED = 8  # updates of a rehearsal


@dataclass(frozen=True)
class Plan:
    """The five slots filled, and how much."""

    sampler: Sampler
    objective: Objective
    update: Update
    schedule: Schedule
    augments: tuple[tuple[str, Augment | Blend], ...] = ()  # (input, what changes it), in order
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
    average: Average | None = None  # of the weights: what is validated, and what the training ends with
    audience: Audience = field(default_factory=Audience)  # the listeners of the recipe
    effective: int | None = None  # rows of one update, where they are no multiple of batch_size
    thrift: Thrift = field(default_factory=Thrift)  # less memory for the same bits

    @property
    def rows(self) -> int:
        """Rows of one update of one rank."""
        return self.effective or self.batch_size * self.accumulate

    def epochs_in(self, run: Run) -> int:
        return 1 if run.rehearse else self.epochs

    def rate(self, step: int, total: int, checks: Checks = ()) -> float:
        """The learning rate of an update, after these checks."""
        return self.learning_rate * self.schedule.factor(step, total, checks)

    def pace(self, step: int, total: int, checks: Checks = ()) -> tuple[float, float]:
        """The learning rate of an update, and what its momentum is multiplied with."""
        return self.rate(step, total, checks), self.schedule.damping(step, total, checks)

    def updates(self, order: Tensor, run: Run) -> tuple[Tensor, ...]:
        """The row numbers of each update of an epoch, all ranks together.

        With several ranks a last update of fewer rows than ranks is left out.
        """
        cut = order.split(self.rows * run.world)
        if len(cut[-1]) < run.world:
            cut = cut[:-1]
        if not cut:
            raise LuodiError(f"{len(order)} rows cannot be shared among {run.world} processes; use fewer")
        return cut[:REHEARSED] if run.rehearse else cut

    def batches(self, examples: Examples, updates: Sequence[Tensor], step: int, run: Run) -> Iterator[list[Pair]]:
        """This rank's part of each update, in pieces of `batch_size`, augmented; `step` is the number of the first."""
        parts = [self.pieces(rows, at, run) for at, rows in enumerate(updates, step)]
        stream = self.stream(examples, [piece for pieces in parts for piece in pieces], run)
        for pieces in parts:
            yield [self._changed(next(stream), key, run) for _, key in pieces]

    def stream(self, examples: Examples, pieces: Sequence[Piece], run: Run) -> Iterator[Pair]:
        """The examples of each piece, in order, their tensors not changed yet."""
        return loaded(examples, pieces, self.workers, run.device)

    def pieces(self, rows: Tensor, step: int, run: Run) -> Sequence[Piece]:
        """This rank's part of an update, in pieces of `batch_size`, each with its key (update, piece, rank)."""
        if self.accumulate == 1 and run.world == 1:
            return [(rows, (step, 0, 0))]
        parts = rows.tensor_split(run.world)[run.rank].split(self.batch_size)
        return [(part, (step, place, run.rank)) for place, part in enumerate(parts)]

    def inputs(self, examples: Examples, run: Run) -> Iterator[Batch]:
        """The inputs of the first epoch's batches, the same on every rank: what batch norms' statistics come from."""
        alone = replace(run, rank=0, world=1)
        for pieces in self.batches(examples, self.updates(self.sampler.order(0), alone), 0, alone):
            yield from (inputs for inputs, _ in pieces)

    def losses(self, model: nn.Module, batch: Batch, truth: Batch) -> Losses:
        """The objective, also of examples that were blended."""
        return losses_of(self.objective, model, batch, truth)

    def _changed(self, pair: Pair, key: tuple[int, int, int], run: Run) -> Pair:
        """One forward's examples after every augment; the dice are a function of (seed, scope, augment, key)."""
        if not self.augments:
            return pair
        inputs, truth = dict(pair[0]), pair[1]
        for place, (name, augment) in enumerate(self.augments):
            generator = run.generator("augment", place, *key)
            if isinstance(augment, Blend):
                inputs[name], truth = blended(augment, inputs[name], truth, generator)
            else:
                inputs[name] = augment.apply(inputs[name], generator)
        return inputs, truth
