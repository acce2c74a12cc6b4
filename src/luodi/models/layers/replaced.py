"""A layer of a model in the place of another."""

from __future__ import annotations

from torch import nn


def put(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Replaces the layer of that name, which is not the model itself."""
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, layer)
