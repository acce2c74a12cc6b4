"""What moves the weights along their gradients, and remembers something while it does.

Not torch.optim: making one of its optimizers imports torch's compiler, seconds that no training needs. The kernels and
formulas are the same. Any torch optimizer fits too: see `torch_optimizer.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from luodi.core.thing import Json
from luodi.core.weights import unpack
from luodi.train.loop.memories import Joined

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.train.loop.averaging import Pairing


class Memory(Protocol):
    """What goes into a checkpoint, and comes back from it."""

    def tensors(self) -> Mapping[str, Tensor]:
        """Everything that is a tensor, by name."""
        ...

    def facts(self) -> Json:
        """Everything else."""
        ...

    def restore(self, tensors: Mapping[str, Tensor], facts: Json) -> None:
        """Puts both back."""
        ...


class Move(Protocol):
    """Moves every parameter that has a gradient.

    `damping`, from 0 to 1, is what a schedule multiplies the update's momentum with, its first beta where it has betas;
    an update that has neither takes no notice.
    """

    def __call__(self, rate: float, damping: float = 1.0) -> None: ...


@dataclass(frozen=True)
class Mover:
    """An update at work on one model."""

    move: Move
    memory: Memory
    shown: Pairing | None = None  # of an update that ends with other weights than it trains


@dataclass(frozen=True)
class Group:
    """Parameters of one weight decay, and what is remembered of each: name -> one tensor a parameter."""

    parameters: list[nn.Parameter]
    decay: float
    memory: Mapping[str, list[Tensor]]

    def moving(self) -> tuple[list[Any], list[Any], Mapping[str, list[Tensor]]]:
        """Parameters that have a gradient, the gradients, their memory."""
        slopes = [parameter.grad for parameter in self.parameters]
        places = [place for place, slope in enumerate(slopes) if slope is not None]
        if len(places) == len(slopes):
            return self.parameters, slopes, self.memory
        memory = {name: [kept[place] for place in places] for name, kept in self.memory.items()}
        return [self.parameters[place] for place in places], [slopes[place] for place in places], memory


@dataclass(frozen=True)
class GroupMemory:
    """The memory of several groups."""

    groups: tuple[Group, ...]

    def tensors(self) -> Mapping[str, Tensor]:
        found: dict[str, Tensor] = {}
        for number, group in enumerate(self.groups):
            for name, kept in group.memory.items():
                for place, tensor in enumerate(kept):
                    unpack(f"{number}/{name}/{place}", tensor, found)
        return found

    def facts(self) -> Json:
        return {}

    def restore(self, tensors: Mapping[str, Tensor], facts: Json) -> None:
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])


def together(movers: Mapping[str, Mover]) -> Mover:
    """Several movers of one model's different parameters as one."""

    def move(rate: float, damping: float = 1.0) -> None:
        for mover in movers.values():
            mover.move(rate, damping)

    return Mover(move, Joined({name: mover.memory for name, mover in movers.items()}))


def counters(group: Group) -> list[Tensor]:
    """How many updates each parameter had, as torch's fused kernels want it: a number in a tensor."""
    import torch

    return [torch.zeros((), device=parameter.device) for parameter in group.parameters]


def groups_of(
    model: nn.Module, weight_decay: float, names: tuple[str, ...], without: Sequence[nn.Parameter] = ()
) -> tuple[Group, ...]:
    """The trained parameters, and zeros under each name; biases and scales of normalisation layers do not decay.

    A bias or scale is what has fewer than two axes, or what belongs to a normalisation layer.
    """
    import torch
    from torch import nn

    norms = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)
    spared = {id(p) for m in model.modules() if isinstance(m, norms) for p in m.parameters(recurse=False)}
    left_out = {id(p) for p in without}
    trained = [p for p in model.parameters() if p.requires_grad and id(p) not in left_out]
    weights = [p for p in trained if p.dim() >= 2 and id(p) not in spared]
    chosen = {id(p) for p in weights}
    others = [p for p in trained if id(p) not in chosen]
    return tuple(
        Group(parameters, decay, {name: [torch.zeros_like(p) for p in parameters] for name in names})
        for parameters, decay in ((weights, weight_decay), (others, 0.0))
        if parameters
    )
