"""A training's peak memory before it happens: its own code, walked through on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from luodi.train.loop.examples import CHUNK
from luodi.train.loop.memory.imagined import attention_of, mixed, recurrence_of
from luodi.train.loop.memory.ledger import counted
from luodi.train.loop.memory.thrift import Thrift, thrifty
from luodi.train.loop.precision import Arithmetic

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.bundle import Edit
    from luodi.core.spec import Arrays
    from luodi.core.task import Task
    from luodi.core.thing import ModelConfig
    from luodi.train.loop.examples import Pair
    from luodi.train.loop.slots import Batch, Losses
    from luodi.train.train import Train

MB = 1e6
# What a process grows by beyond its tensors, whatever the training: kernels that are made when they are first used,
# buffers of matrix products, Python's own objects. 10 MB for the tiniest network, 14 to 18 for large ones, measured
# with benchmarks/memory.py on 2 cores.
LIBRARIES_MB = 15.0
ENCODING = 3  # times its size that a piece of examples takes while it is encoded: as read, as stacked, as numbers


@dataclass(frozen=True)
class Subject:
    """What is trained: a model on the meta device, and two encoded rows of its task."""

    task: Task
    fresh: Callable[[], nn.Module]  # the model as it will be trained; called on the meta device
    example: tuple[Arrays, Arrays]  # inputs and truth of two rows
    rows: int
    validation: int  # rows
    device: str


@dataclass(frozen=True)
class Prediction:
    """MB by what needs them, and at the worst moment of each phase."""

    weights: float
    optimizer: float
    gradients: float
    activations: float  # and all else that comes and goes within an update
    held: float  # encoded examples, of training and validation
    phases: Mapping[str, float]  # phase -> MB at its worst moment, libraries included

    @property
    def mb(self) -> float:
        """MB at the worst moment of all."""
        return max(self.phases.values())

    @property
    def told(self) -> str:
        """One sentence."""
        worst = max(self.phases, key=lambda name: self.phases[name])
        return (
            f"{self.mb:,.0f} MB predicted ({worst}): weights {self.weights:,.0f}, gradients {self.gradients:,.0f}, "
            f"optimizer {self.optimizer:,.0f}, activations {self.activations:,.0f}, examples {self.held:,.0f}"
        )


def predict(step: Train, subject: Subject) -> Prediction:
    """The peak of a training with its libraries, above a process that has imported what it needs."""
    one = sum(array.nbytes for part in subject.example for array in part.values()) / 2
    held = sum(size for size in (one * subject.rows, one * subject.validation) if size / MB <= step.hold_mb)
    walk = _Walk(step, subject)
    walk.run()
    base = LIBRARIES_MB + held / MB
    kept = walk.weights * ((step.patience is not None) + (step.average is not None))  # the best ones, and averages
    steady = walk.weights + walk.optimizer + walk.gradients + kept
    lent = walk.weights if step.average is not None else 0  # the trained ones, while averages are looked at
    encoding = min(CHUNK, max(subject.rows, subject.validation)) * one * ENCODING
    phases = {
        "encoding examples": base + (walk.weights + encoding) / MB,
        "updating": base + (walk.updating + kept) / MB,
        "validating": base + (walk.validating + kept + lent) / MB,
        "writing a checkpoint": base + (steady + walk.copied) / MB,
        "changing a batch": base + (steady + _changing(step, subject)) / MB,
    }
    if step.learning_rate == "auto":
        phases["finding the rate"] = base + (walk.updating + walk.weights) / MB
    gone = walk.updating - walk.weights - walk.optimizer - walk.gradients
    return Prediction(walk.weights / MB, walk.optimizer / MB, walk.gradients / MB, max(gone, 0) / MB, held / MB, phases)


def familiar(step: Train, fresh: Callable[[], nn.Module]) -> None:
    """Imports what this model and this update need, by using them once on next to nothing."""
    import torch

    fresh()
    layer = torch.nn.Linear(2, 2)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    step.update.build(layer).move(0.0)


class _Walk:
    """Two updates and a validation on the meta device: the first update makes what the second finds."""

    def __init__(self, step: Train, subject: Subject) -> None:
        self.step, self.subject = step, subject
        self.weights = self.optimizer = self.gradients = self.updating = self.validating = self.copied = 0

    def run(self) -> None:
        """Fills the figures in, all in bytes."""
        import torch

        from luodi.train.loop.layout import channels_last
        from luodi.train.loop.learning import Learning

        familiar(self.step, self.subject.fresh)  # or its imports would meet the stand-ins of the walk
        with ExitStack() as stack:
            stack.enter_context(torch.device("meta"))
            stack.enter_context(attention_of(self.subject.device))
            stack.enter_context(recurrence_of(self.subject.device))
            ledger = stack.enter_context(counted())
            model = self.subject.fresh()
            stack.enter_context(channels_last(model, self.subject.device))
            stack.enter_context(thrifty(model, "cpu", None, Thrift(self.step.recompute, self.step.offload)))
            self.weights = ledger.live
            learning = Learning(model, self.step.learn, self.step.update)
            for _ in range(2):
                ledger.mark()
                model.train()
                self._update(model, learning)
                self.updating = max(self.updating, ledger.peak)
            after = ledger.live
            self.gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
            self.optimizer = after - self.weights - self.gradients
            self.copied = sum(t.nbytes for t in _kept(model, learning) if not t.is_contiguous())
            ledger.mark()
            self._validate(model)
            self.validating = ledger.peak

    def _update(self, model: nn.Module, learning: Any) -> None:
        from torch.nn.utils import clip_grad_norm_

        from luodi.train.loop.gradients import backward

        rows, forwards = self.step.rows_per_forward, self.step.accumulate
        parameters = learning.begin(self.step.epochs - 1)
        # From the third forward on nothing new happens; what it is given is there from the beginning.
        batches = [_blank(self.subject.example, rows) for _ in range(min(forwards, 3))]
        waiting = [_blank(self.subject.example, rows) for _ in range(forwards - 3)]
        arithmetic = Arithmetic(self.step.precision, self.subject.device)
        backward(self._losses, model, parameters, batches, 1, arithmetic)
        if self.step.clip is not None:
            clip_grad_norm_(parameters, self.step.clip)
        learning.move(1e-3)
        del waiting

    def _losses(self, model: nn.Module, batch: Batch, truth: Batch) -> Losses:
        with mixed(self.step.precision):
            return self.subject.task.loss(model, batch, truth)

    def _validate(self, model: nn.Module) -> None:
        import torch

        from luodi.train.loop.validation import BATCH

        rows = min(BATCH, self.subject.validation)
        if rows:
            model.eval()
            with torch.no_grad():  # as inference mode, which a dispatch mode cannot look into
                self.subject.task.loss(model, *_blank(self.subject.example, rows))


def _blank(example: tuple[Arrays, Arrays], rows: int) -> Pair:
    import torch

    def of(arrays: Arrays) -> dict[str, Tensor]:
        return {
            name: torch.empty((rows, *array.shape[1:]), dtype=torch.from_numpy(np.empty(0, array.dtype)).dtype)
            for name, array in arrays.items()
        }

    return of(example[0]), of(example[1])


def _kept(model: nn.Module, learning: Any) -> list[Tensor]:
    """What a checkpoint holds."""
    from luodi.core.weights import plain_tensors

    return [*plain_tensors(model)[0].values(), *learning.memory.tensors().values()]


def _changing(step: Train, subject: Subject) -> float:
    """Bytes of a batch and of what its augments need at their worst moment: that of two rows, times as many."""
    import torch

    from luodi.train.loop.slots import Augment

    inputs = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in subject.example[0].items()}
    worst = 0.0
    with counted() as ledger:
        for augment in (one for one in step.augment if isinstance(one, Augment)):
            for name, spec in subject.task.inputs_specs().items():
                if spec.kind == augment.kind:
                    augment.apply(inputs[name], torch.Generator().manual_seed(0))
        worst = ledger.peak
    batch = sum(array.nbytes for part in subject.example for array in part.values())
    return (batch + worst) * step.rows_per_forward * step.accumulate / 2


def blank(task: Task, config: ModelConfig, edits: tuple[Edit, ...] = ()) -> nn.Module:
    """The model as it will be trained, on the meta device: its edits replayed."""
    import torch

    with torch.device("meta"):
        model = task.build(config)
        for edit in edits:
            model = edit.step.restore(task, model, edit.plan)
    return model
