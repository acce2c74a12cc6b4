"""Activations that wait for their gradient outside the memory."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

SMALLEST = 1 << 16  # bytes: a smaller tensor stays where it is; a file costs more time than it saves memory


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
