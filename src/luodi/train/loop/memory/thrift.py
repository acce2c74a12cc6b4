"""Less memory for the same bits: activations computed twice, or kept on the disk until their gradient is due."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from luodi.train.loop.memory.offload import offloaded
from luodi.train.loop.memory.recompute import recomputed

if TYPE_CHECKING:
    from torch import nn


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
