"""Less memory for the same bits: activations computed twice, or kept on the disk until their gradient is due."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

SMALLEST = 1 << 16  # bytes: a smaller tensor stays where it is; a file costs more time than it saves memory


@dataclass(frozen=True)
class Thrift:
    """What a training does for less memory; none of it changes a bit of its result."""

    recompute: bool = False
    offload: bool = False
    exact: bool = False  # freed memory is given back at once (allocator.py)


@contextmanager
def thrifty(model: nn.Module, device: str, folder: Path | None, thrift: Thrift) -> Generator[None]:
    """Inside, the model's activations are recomputed or offloaded.

    `folder`: where the file of what is offloaded goes; None: nowhere in particular, for a walk on the meta device.
    """
    with ExitStack() as stack:
        if thrift.recompute:
            stack.enter_context(recomputed(model))
        if thrift.offload:
            stack.enter_context(offloaded(model, device, folder))
        yield


# ---- recompute ------------------------------------------------------------------------------------------------------


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
    from torch.utils.checkpoint import checkpoint

    def forward(*given: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return run(*given, **named)
        return checkpoint(run, *given, use_reentrant=False, context_fn=lambda: (nullcontext(), _still(module)), **named)

    return forward


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
            norm.num_batches_tracked.copy_(count)


# ---- offload --------------------------------------------------------------------------------------------------------


def offloaded(model: nn.Module, device: str, folder: Path | None) -> AbstractContextManager[Any]:
    """What the backward pass will need waits in a file, or for a device other than the CPU in the CPU's memory."""
    import torch

    if device.partition(":")[0] != "cpu":
        return torch.autograd.graph.save_on_cpu()
    return _on_disk(model, folder)


@contextmanager
def _on_disk(model: nn.Module, folder: Path | None) -> Generator[None]:
    import torch

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
        scratch = _Scratch(file.fileno(), own)
        with torch.autograd.graph.saved_tensors_hooks(scratch.pack, scratch.unpack):
            yield


class _Away:
    """A tensor that was written to the file."""

    def __init__(self, at: int, like: Tensor) -> None:
        self.at, self.shape, self.stride, self.dtype, self.device = (
            at,
            like.shape,
            like.stride(),
            like.dtype,
            like.device,
        )


class _Scratch:
    """One file; it is written from its beginning again once nothing that it holds is wanted any more."""

    def __init__(self, file: int, own: set[int]) -> None:
        self.file, self.own, self.end = file, own, 0  # own: storages of the model, which stay in memory anyway
        self.wanted: weakref.WeakSet[_Away] = weakref.WeakSet()

    def pack(self, tensor: Tensor) -> Tensor | _Away:
        size = tensor.untyped_storage().nbytes()
        whole = size == tensor.numel() * tensor.element_size() and tensor.storage_offset() == 0
        if size < SMALLEST or not whole or tensor.untyped_storage()._cdata in self.own:
            return tensor
        self.end = self.end if self.wanted else 0
        away = _Away(self.end, tensor)
        if not tensor.is_meta:
            _write(self.file, memoryview(_bytes_of(tensor)), self.end)
        self.end += size
        self.wanted.add(away)
        return away

    def unpack(self, kept: Tensor | _Away) -> Tensor:
        import torch

        if not isinstance(kept, _Away):
            return kept
        tensor = torch.empty_strided(kept.shape, kept.stride, dtype=kept.dtype, device=kept.device)
        if not tensor.is_meta:
            _read(self.file, memoryview(_bytes_of(tensor)), kept.at)
        return tensor


def _bytes_of(tensor: Tensor) -> Any:
    import torch

    return torch.empty(0, dtype=torch.uint8).set_(tensor.detach().untyped_storage()).numpy()


def _write(file: int, data: memoryview, at: int) -> None:
    while data:
        done = os.pwrite(file, data, at)
        data, at = data[done:], at + done


def _read(file: int, data: memoryview, at: int) -> None:
    while data:
        done = os.preadv(file, [data], at)
        assert done, "the file of what was offloaded has been cut"
        data, at = data[done:], at + done
