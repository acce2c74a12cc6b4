"""The slots of the loop: sampler, objective, update (with schedule and average of the weights), augment, listeners."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from luodi.core.thing import Thing

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator, Tensor, nn

    from luodi.core.run import Run
    from luodi.train.loop.audience import Stage
    from luodi.train.loop.averaging import Averager
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

    thins: ClassVar[bool] = False  # it sets weights to 0 that are to stay so
    averages: ClassVar[bool] = False  # whether it ends with averages of the weights that it trains

    def packages(self) -> Mapping[str, str]:
        """{package: extra} of the optional packages that it imports; `plan` reports the missing ones."""
        return {}

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


class Average(Thing):
    """Averages of the weights over the training: validated, and what the training ends with."""

    def build(self, model: nn.Module) -> Averager:
        """What averages this model's weights; nothing is averaged yet."""
        raise NotImplementedError


@dataclass(frozen=True)
class Check:
    """What one validation brought."""

    loss: float
    score: float  # the main metric, the higher the better; NaN where the task has none or it is undefined


Checks = Sequence[Check]


class Schedule(Thing):
    """How the learning rate goes over a training."""

    checks: ClassVar[bool] = False  # whether it looks at them: it then needs validation rows

    def factor(self, step: int, total: int, checks: Checks = ()) -> float:
        """What the learning rate is multiplied with at update `step` (0 .. total - 1), after these checks."""
        raise NotImplementedError

    def damping(self, step: int, total: int, checks: Checks = ()) -> float:
        """What the update's momentum is multiplied with then, from 0 to 1."""
        return 1.0


class Augment(Thing):
    """A random change of the training inputs that leaves their targets true."""

    kind: ClassVar[Literal["image", "sound"]] = "image"  # the kind of the fields that it changes

    def apply(self, values: Tensor, generator: Generator) -> Tensor:
        """Changed values of the same shape and type; every random number comes from `generator` (on the CPU)."""
        raise NotImplementedError


class TextAugment(Thing):
    """A random change of the training texts, before they are encoded, that leaves their targets true."""

    kind: ClassVar[Literal["text"]] = "text"

    def apply_text(self, values: Sequence[str], dice: np.random.Generator) -> list[str]:
        """The texts of a batch, changed; every random number comes from `dice`."""
        raise NotImplementedError


class Observer(Thing):
    """Hears of a training and may look at the model between updates; what is trained does not depend on it."""

    def packages(self) -> Mapping[str, str]:
        """{package: extra} of the optional packages this config imports."""
        return {}

    def open(self, run: Run, model: nn.Module, stage: Stage) -> Listener:
        """What is told every event of this training from now on."""
        raise NotImplementedError


class Blend(Thing):
    """A random blend of each training input with another one of its batch, and of their targets in the same shares."""

    kind: ClassVar[Literal["image", "sound"]] = "image"

    def blend(self, values: Tensor, partners: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Blended values, and the share (batch,) that each keeps of its own; `partners` are those blended in."""
        raise NotImplementedError
