"""What a model is worth on the validation split, while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import TYPE_CHECKING

import numpy as np

from luodi.core.errors import LuodiError
from luodi.core.predictor import Predictor, TorchForward
from luodi.train.loop.examples import Examples, examples_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.bundle import Bundle
    from luodi.core.rows import Rows
    from luodi.core.run import Run
    from luodi.core.task import Task
    from luodi.train.train import Train

MOST = 2000  # rows: an accuracy is then known to about one point
BATCH = 256


@dataclass(frozen=True)
class Checked:
    """The loss and the metrics of one check."""

    loss: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Validation:
    """Loss and metrics over fixed rows; the metrics go through the same Predictor that serves."""

    task: Task
    rows: Rows
    examples: Examples

    def __call__(self, model: nn.Module) -> Checked:
        exam = self.task.examine(Predictor(self.task, TorchForward(model)), self.rows, inf)
        metrics = {
            name: value for name, value in self.task.score(exam).items() if isfinite(value)
        }  # NaN: undefined here
        return Checked(self._loss(model), metrics)

    def _loss(self, model: nn.Module) -> float:
        import torch

        sums: dict[str, tuple[float, float, float]] = {}
        with torch.inference_mode():
            for rows in torch.arange(self.examples.count).split(BATCH):
                for name, (losses, weights, share) in self.task.loss(model, *self.examples.batch(rows)).items():
                    loss, weight, _ = sums.get(name, (0.0, 0.0, share))
                    sums[name] = (loss + _sum(losses), weight + _sum(weights), share)
        return sum(share * loss / weight for loss, weight, share in sums.values() if weight)


def validation_of(task: Task, rows: Rows, run: Run, hold_mb: float) -> Validation:
    """A check on at most MOST rows (64 in a rehearsal), always the same: early stopping must not depend on time."""
    most = 64 if run.rehearse else MOST
    if len(rows) > most:
        rows = rows.take(np.sort(run.dice("validation").permutation(len(rows))[:most]))
    examples, _ = examples_of(task, rows, run.device, hold_mb)
    return Validation(task, rows, examples)


def wanted_by(step: Train, bundle: Bundle, run: Run) -> Validation | None:
    """The check after each epoch, None without validation rows; raises LuodiError if the step cannot do without."""
    assert bundle.data is not None
    rows = bundle.data.splits.get("validation")
    if rows is None or not len(rows):
        for who, needs in (("patience", step.patience is not None), ("this schedule", step.schedule.checks)):
            if needs:
                raise LuodiError(f"train: {who} needs validation rows; give `split` a validation share above 0")
        return None
    return validation_of(bundle.task, rows, run, step.hold_mb)


def _sum(values: Tensor) -> float:
    return float(values.double().sum())
