"""A module's state dict made to hold the whole of its state."""

from __future__ import annotations

from torch import nn


def whole_state(network: nn.Module) -> nn.Module:
    """Buffers that the module leaves out of its state dict (tables of positions) are kept in it from now on."""
    for layer in network.modules():
        layer._non_persistent_buffers_set.clear()
    return network
