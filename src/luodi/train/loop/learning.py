"""Which weights learn, at which rate: a model's stages, from its input to its output, and a mover for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from luodi.core.errors import LuodiError
from luodi.train.loop.memories import Joined

if TYPE_CHECKING:
    from torch import nn

    from luodi.train.loop.movers import Memory, Mover
    from luodi.train.loop.slots import Scope, Update


@dataclass(frozen=True)
class Stage:
    """Layers that learn together, in the order of the model's definition."""

    name: str
    modules: list[nn.Module]
    parameters: list[nn.Parameter]


def stages_of(model: nn.Module) -> list[Stage]:
    """The trained layers by stage: a layer's path up to its first number (`blocks.3.conv` is of `blocks.3`); all the
    heads are one stage. A weight that two layers share belongs to the first."""
    found: dict[str, Stage] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad and id(p) not in seen]
        seen.update(map(id, own))
        if own:
            stage = found.setdefault(_stage(path), Stage(_stage(path), [], []))
            stage.modules.append(module)
            stage.parameters.extend(own)
    return list(found.values())


def _stage(path: str) -> str:
    parts = path.split(".")
    if parts[0] == "heads":
        return "heads"
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1]) if numbers else path


class Learning:
    """The movers of a model's stages. `begin` says for each epoch which stages are frozen; they are, layers whose
    statistics move included."""

    def __init__(self, model: nn.Module, scope: Scope, update: Update) -> None:
        self.model, self.scope = model, scope
        self.stages = stages_of(model)
        if not self.stages:
            raise LuodiError("this model has nothing to train: all its weights are frozen")
        self.names = [stage.name for stage in self.stages]
        self.rates = [1.0] * len(self.stages)
        first = scope.rates(self.names, 0)
        self.whole = scope.steady and set(first) == {1.0}
        # What stays frozen to the end needs no mover, whose memory may be twice the size of its weights.
        self.moved = [place for place, rate in enumerate(first) if rate or not scope.steady]
        self.movers = (
            [update.build(model)]
            if self.whole
            else [_mover(self.stages, self.stages[place], update) for place in self.moved]
        )

    def begin(self, epoch: int) -> list[nn.Parameter]:
        """The parameters that learn in this epoch; the others keep their values, and need no gradient."""
        if not self.whole:
            self.rates = list(self.scope.rates(self.names, epoch))
        for stage, rate in zip(self.stages, self.rates, strict=True):
            for parameter in stage.parameters:
                parameter.requires_grad_(rate > 0)
                parameter.grad = None
            for module in stage.modules if not rate else ():
                module.eval()  # the running statistics of a frozen normalisation layer stay too
        return [p for stage, rate in zip(self.stages, self.rates, strict=True) for p in stage.parameters if rate]

    def move(self, rate: float, damping: float = 1.0) -> None:
        """One update of every stage that learns."""
        if self.whole:
            self.movers[0].move(rate, damping)
            return
        for mover, place in zip(self.movers, self.moved, strict=True):
            if self.rates[place]:
                mover.move(rate * self.rates[place], damping)

    def end(self) -> None:
        """Nothing is frozen any more."""
        for stage in self.stages:
            for parameter in stage.parameters:
                parameter.requires_grad_(True)

    @property
    def memory(self) -> Memory:
        names = ["all"] if self.whole else [self.names[place] for place in self.moved]
        return Joined({name: mover.memory for name, mover in zip(names, self.movers, strict=True)})


def _mover(stages: list[Stage], one: Stage, update: Update) -> Mover:
    """An update sees what needs a gradient: for a moment that is this stage alone."""
    import torch
    from torch import nn

    place = "heads" if one.name == "heads" else "stage"  # by this name an update knows the heads, which Muon spares
    alone = nn.ModuleDict({place: nn.ModuleList(one.modules)})
    others = [p for stage in stages if stage is not one for p in stage.parameters]
    with torch.no_grad():
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            return update.build(alone)
        finally:
            for parameter in others:
                parameter.requires_grad_(True)
