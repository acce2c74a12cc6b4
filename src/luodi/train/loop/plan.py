"""What a training is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from luodi.core.errors import LuodiError
from luodi.train.loop.blending import blended, losses_of
from luodi.train.loop.slots import Augment, Batch, Blend, Listener, Losses, Objective, Sampler, Schedule, Update

if TYPE_CHECKING:
    from torch import Tensor, nn

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
    augments: tuple[tuple[str, Augment | Blend], ...] = ()  # (input, what changes it), in order
    listeners: tuple[Listener, ...] = ()
    epochs: int = 10
    batch_size: int = 64  # rows of one forward
    accumulate: int = 1  # forwards of one update
    learning_rate: float = 1e-3
    clip: float | None = None  # largest norm of an update's whole gradient
    zeros: Literal["keep", "refill"] = "keep"  # whether weights that were pruned stay zero

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

    def batches(self, examples: Examples, rows: Tensor, step: int, run: Run) -> list[Pair]:
        """This rank's part of an update, in pieces of `batch_size`, augmented."""
        if self.accumulate == 1 and run.world == 1:
            return [self._piece(examples, rows, (step, 0, 0), run)]
        parts = rows.tensor_split(run.world)[run.rank].split(self.batch_size)
        return [self._piece(examples, part, (step, micro, run.rank), run) for micro, part in enumerate(parts)]

    def losses(self, model: nn.Module, batch: Batch, truth: Batch) -> Losses:
        """The objective, also of examples that were blended."""
        return losses_of(self.objective, model, batch, truth)

    def _piece(self, examples: Examples, rows: Tensor, key: tuple[int, int, int], run: Run) -> Pair:
        """One forward's examples after every augment; the dice are a function of (seed, scope, augment, key), where key
        is (update, piece, rank)."""
        pair = examples.batch(rows, key)
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
