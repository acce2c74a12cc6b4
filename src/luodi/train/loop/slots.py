"""The five slots of the loop: sampler, objective, update (with its schedule), augment, listeners."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from luodi.core.thing import Thing

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from luodi.core.run import Run
    from luodi.train.loop.audience import Stage
    from luodi.train.loop.movers import Mover

Batch = Mapping[str, "Tensor"]  # named tensors, the first axis is the batch
Losses = Mapping[str, "tuple[Tensor, Tensor, float]"]  # name -> (losses (batch,), weights (batch,), share)
Listener = Callable[[str, Mapping[str, Any]], None]  # (event, facts), as Run.log: "progress", "epoch", "layers"


class Sampler(Protocol):
    """Which rows, in which order."""

    def order(self, epoch: int) -> Tensor:
        """Row numbers of an epoch, int64 on the CPU; equally many every epoch, the same at every call."""
        ...


class Objective(Protocol):
    """What is minimised; the default is `task.loss`."""

    def __call__(self, model: nn.Module, batch: Batch, truth: Batch) -> Losses: ...


class Update(Thing):
    """How gradients move the weights."""

    def build(self, model: nn.Module) -> Mover:
        """What moves this model's trainable parameters, on the device where they are."""
        raise NotImplementedError


class Scope(Thing):
    """Which weights learn, and at which share of the learning rate."""

    steady: ClassVar[bool] = True  # the same rates in every epoch

    def rates(self, stages: Sequence[str], epoch: int) -> list[float]:
        """What each stage's learning rate is multiplied with in an epoch (0: frozen); stages go from the input to the
        output, the heads last."""
        raise NotImplementedError


class Schedule(Thing):
    """How the learning rate goes over a training."""

    def factor(self, step: int, total: int) -> float:
        """What the learning rate is multiplied with at update `step` (0 .. total - 1)."""
        raise NotImplementedError


class Augment(Thing):
    """A random change of the training inputs that leaves their targets true."""

    kind: ClassVar[str] = "image"  # the kind of Spec that it changes

    def apply(self, values: Tensor, generator: Generator) -> Tensor:
        """Changed values of the same shape and type; every random number comes from `generator` (on the CPU)."""
        raise NotImplementedError


class Observer(Thing):
    """Hears of a training and may look at the model between updates; what is trained does not depend on it."""

    def packages(self) -> Mapping[str, str]:
        """{package: extra} of the optional packages this config imports."""
        return {}

    def open(self, run: Run, model: nn.Module, stage: Stage) -> Listener:
        """What is told every event of this training from now on."""
        raise NotImplementedError
