"""Tensors put into a fresh model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def filled(model: nn.Module, tensors: Mapping[str, Tensor], *, heads: bool = False) -> tuple[list[str], list[str]]:
    """Copies what fits; the names of tensors that were taken, and of those that stay fresh.

    Without `heads`, these stay fresh whatever fits: equal shapes do not mean equal labels in equal order.
    """
    import torch

    from luodi.train.loop.learning import stages_of

    own = getattr(model, "heads", None)
    whole = heads or (
        own is not None and not any(True for _ in own.parameters())
    )  # it answers without a layer of heads
    last = set() if whole else {id(parameter) for parameter in stages_of(model)[-1].parameters}
    taken, left = [], []
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            given = tensors.get(name)
            if given is None or given.shape != tensor.shape or id(tensor) in last:
                left.append(name)
            else:
                tensor.copy_(given)
                taken.append(name)
    return taken, left
