"""The five slots of the loop: sampler, objective, update (with its schedule), augment, listeners."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from luodi.core.thing import Thing

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator, Tensor, nn

    from luodi.train.loop.movers import Mover

Batch = Mapping[str, "Tensor"]  # named tensors, the first axis is the batch
Losses = Mapping[str, "tuple[Tensor, Tensor, float]"]  # name -> (losses (batch,), weights (batch,), share)
Listener = Callable[[str, Mapping[str, Any]], None]  # (event, facts), as Run.log: "progress", "epoch", "note"


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


class Schedule(Thing):
    """How the learning rate goes over a training."""

    def factor(self, step: int, total: int) -> float:
        """What the learning rate is multiplied with at update `step` (0 .. total - 1)."""
        raise NotImplementedError


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


class Blend(Thing):
    """A random blend of each training input with another one of its batch, and of their targets in the same shares."""

    kind: ClassVar[Literal["image", "sound"]] = "image"

    def blend(self, values: Tensor, partners: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Blended values, and the share (batch,) that each keeps of its own; `partners` are those blended in."""
        raise NotImplementedError
