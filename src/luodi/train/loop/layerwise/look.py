"""One look at every layer of a model, around one update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from luodi.train.loop.layerwise.statistics import dead, rounded, spread, told

if TYPE_CHECKING:
    from torch import Tensor, nn

ACTIVATIONS = "torch.nn.modules.activation"


@dataclass(frozen=True)
class Layer:
    """What was seen of one module; None: it has no such thing."""

    name: str
    kind: str
    weights: Mapping[str, float | None] | None = None
    gradients: Mapping[str, float | None] | None = None
    activations: Mapping[str, float | None] | None = None  # of a rectifier also "dead": units zero for all rows
    slope: float | None = None  # root mean square of the gradient: what layers are compared by
    update: float | None = None  # norm of the update over the norm of the weights

    def facts(self) -> dict[str, Any]:
        """As it goes into the stream of events."""
        parts = {"weights": self.weights, "gradients": self.gradients, "activations": self.activations}
        known = {name: dict(part) for name, part in parts.items() if part is not None}
        more = {"slope": self.slope, "update": self.update}
        return {"name": self.name, "kind": self.kind, **known, **{k: v for k, v in more.items() if v is not None}}


@dataclass
class Look:
    """Begun before an update, ended after it. While it lasts, hooks read what the layers give; nothing is changed.

    Layers are the modules with a trained weight of their own and the activation functions, in the order of their calls.
    """

    model: nn.Module
    hooked: bool = True  # whether to see activations too
    hooks: list[Any] = field(default_factory=list)
    seen: dict[str, Tensor] = field(default_factory=dict)  # name -> spread and dead share of its last output
    before: dict[str, Tensor] = field(default_factory=dict)  # name -> copy of its weights

    def begin(self) -> None:
        """Before the forward."""
        for name, module in self.model.named_modules():
            weight = _weight(module)
            if self.hooked and (weight is not None or type(module).__module__ == ACTIVATIONS):
                self.hooks.append(module.register_forward_hook(self._hook(name)))
            if weight is not None:
                self.before[name] = weight.detach().clone()

    def stop(self) -> None:
        """Takes the hooks away."""
        while self.hooks:
            self.hooks.pop().remove()

    def end(self) -> tuple[Layer, ...]:
        """After the weights have moved; the gradients are those that moved them, clipped if the training clips."""
        self.stop()
        modules = dict(self.model.named_modules())
        order = [*self.seen, *(name for name in self.before if name not in self.seen)]
        return tuple(self._layer(name, modules[name]) for name in order)

    def _hook(self, name: str) -> Any:
        import torch

        def keep(module: nn.Module, given: Any, output: Any) -> None:
            tensor = output if isinstance(output, torch.Tensor) else next(iter(_tensors(output)), None)
            if tensor is not None and tensor.is_floating_point() and tensor.numel():
                with torch.no_grad():
                    self.seen.pop(name, None)  # a module that is called again counts where it was called last
                    found = [spread(tensor)] + ([dead(tensor).reshape(1)] if _rectifies(module) else [])
                    self.seen[name] = torch.cat(found)

        return keep

    def _layer(self, name: str, module: nn.Module) -> Layer:
        weight, output = _weight(module), self.seen.get(name)
        activations = None
        if output is not None:
            numbers = output.tolist()
            activations = {**told(numbers), **({"dead": rounded(numbers[5])} if len(numbers) > 5 else {})}
        if weight is None:
            return Layer(name, type(module).__name__, activations=activations)
        old = self.before[name]
        numbers = spread(weight).tolist()
        norm, moved = float(old.double().norm()), float((weight.detach() - old).double().norm())
        slopes = spread(weight.grad).tolist() if weight.grad is not None else None
        return Layer(
            name, type(module).__name__, told(numbers), told(slopes) if slopes else None, activations,
            slopes[4] if slopes else None, rounded(moved / norm) if norm else None,
        )  # fmt: skip


def _rectifies(module: nn.Module) -> bool:
    """Whether a unit that is zero for every row may never be anything else again."""
    return type(module).__name__ in ("ReLU", "ReLU6", "Hardswish", "Threshold")


def _weight(module: nn.Module) -> Tensor | None:
    """The trained weight that stands for a layer: `weight`, else its largest; a bias follows the same gradient."""
    own = {name: one for name, one in module.named_parameters(recurse=False) if one.requires_grad}
    return own.get("weight", max(own.values(), key=lambda one: one.numel()) if own else None)


def _tensors(output: Any) -> Sequence[Tensor]:
    import torch

    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else ()
    return [value for value in values if isinstance(value, torch.Tensor)]
