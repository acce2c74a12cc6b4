"""Activations that are computed twice and not kept."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from luodi.core.errors import LuodiError
from luodi.train.loop.settings import default_generator

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def recomputed(model: nn.Module) -> Generator[None]:
    """Keeps of each block its input alone; what is inside comes back by a second forward (arXiv 1604.06174).

    Blocks are the composite members of lists and sequences of layers, and in a sequence of plain layers every stretch
    that begins with a weight matrix. Random draws are those of the first forward, statistics are not moved twice.
    """
    from torch import nn

    changed: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, nn.Sequential) and not any(list(layer.children()) for layer in module):
            _shadow(module, _in_stretches(module))
            changed.append(module)
        elif isinstance(module, nn.Sequential | nn.ModuleList):
            for block in (one for one in module if list(one.children()) and type(one).forward is not nn.Module.forward):
                if not isinstance(block, nn.Sequential | nn.ModuleList):  # these are cut up themselves
                    _shadow(block, _twice(block, block.forward))
                    changed.append(block)
    try:
        yield
    finally:
        for module in changed:
            vars(module).pop("forward")


def blocks_in(model: nn.Module) -> int:
    """How many blocks `recomputed` finds."""
    with recomputed(model):
        return sum("forward" in vars(module) for module in model.modules())


def _shadow(module: nn.Module, forward: Callable[..., Any]) -> None:
    vars(module)["forward"] = forward  # of this one object: its class stays as it is


def _in_stretches(module: nn.Sequential) -> Callable[[Tensor], Tensor]:
    stretches: list[list[nn.Module]] = [[]]
    for layer in module:
        if stretches[-1] and any(parameter.dim() >= 2 for parameter in layer.parameters(recurse=False)):
            stretches.append([])
        stretches[-1].append(layer)

    def through(layers: Sequence[nn.Module]) -> Callable[[Tensor], Tensor]:
        def run(values: Tensor) -> Tensor:
            for layer in layers:
                values = layer(values)
            return values

        return _twice(module, run)

    parts = [through(layers) for layers in stretches]

    def forward(values: Tensor) -> Tensor:
        for part in parts:
            values = part(values)
        return values

    return forward


def _twice(module: nn.Module, run: Callable[..., Any]) -> Callable[..., Any]:
    import torch

    def forward(*given: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return run(*given, **named)
        frame = _Frame(module, lambda: run(*given, **named))
        tensors = [one for one in (*given, *named.values()) if isinstance(one, torch.Tensor)]
        before = [one._version for one in tensors]
        with torch.autograd.graph.saved_tensors_hooks(frame.leave, frame.bring):
            found = frame.again()
        if before != [one._version for one in tensors]:
            raise LuodiError(f"recompute: a {type(module).__name__} of this model changes its input in place")
        return found

    return forward


class _Frame:
    """One forward of one block. What its backward pass needs is not kept, but made again when the first of it is asked
    for: `torch.utils.checkpoint` does the same, and imports torch's compiler for it, seconds and 50 MB."""

    def __init__(self, module: nn.Module, again: Callable[[], Any]) -> None:
        import torch

        self.module, self.again = module, again
        self.count = 0
        self.made: dict[int, Tensor] = {}
        self.device = next((p.device.type for p in module.parameters() if not p.is_meta), "cpu")
        self.dice = default_generator(self.device)
        self.drawn = self.dice.get_state()
        self.mixed = (torch.is_autocast_enabled(self.device), torch.get_autocast_dtype(self.device))

    def leave(self, tensor: Tensor) -> int:
        self.count += 1
        return self.count - 1

    def bring(self, place: int) -> Tensor:
        if place not in self.made:
            self._make()
        return self.made.pop(place)

    def _make(self) -> None:
        import torch

        self.made = {}

        def keep(tensor: Tensor) -> None:
            self.made[len(self.made)] = tensor.detach()  # and nothing stays in the graph, which is never gone through

        now, (enabled, dtype) = self.dice.get_state(), self.mixed
        self.dice.set_state(self.drawn)
        try:
            with (
                torch.enable_grad(), torch.autocast(self.device, dtype, enabled), _still(self.module),
                torch.autograd.graph.saved_tensors_hooks(keep, lambda nothing: nothing),
            ):  # fmt: skip
                self.again()
        finally:
            self.dice.set_state(now)
        assert len(self.made) == self.count, "a block that was computed again must keep what it kept at first"


@contextmanager
def _still(module: nn.Module) -> Generator[None]:
    """Batch norms inside use a batch's own statistics, and leave the running ones as they are."""
    from torch import nn

    norms = [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._NormBase) and one.training]
    momenta = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked.clone() for norm in norms if norm.num_batches_tracked is not None]
    for norm in norms:
        norm.momentum = 0.0  # 1 * running + 0 * batch
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for norm, count in zip([one for one in norms if one.num_batches_tracked is not None], counts, strict=True):
            cast(Any, norm.num_batches_tracked).copy_(count)
