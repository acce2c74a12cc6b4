"""Tensors put into one part of a model that has several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def filled_part(part: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[list[str], list[str], float]:
    """Copies what fits by name and shape; names that were taken, names that stay fresh, the share of numbers taken."""
    import torch

    taken, left, numbers = [], [], 0
    with torch.no_grad():
        for name, tensor in part.state_dict(keep_vars=True).items():
            given = tensors.get(name)
            if given is None or given.shape != tensor.shape:
                left.append(name)
            else:
                tensor.copy_(given)
                taken.append(name)
                numbers += tensor.numel()
    return taken, left, numbers / max(sum(tensor.numel() for tensor in part.state_dict().values()), 1)
