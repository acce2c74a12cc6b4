"""Numbers that say how a layer's values lie."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NAMES = ("mean", "deviation", "norm", "zeros")


def spread(values: Tensor) -> Tensor:
    """(5,) float64 on the tensor's device: mean, standard deviation, Euclidean norm, share of zeros, root mean square.

    The deviation is that of all values, not of a sample of them.
    """
    import torch

    flat = values.detach().reshape(-1).double()
    mean, square = flat.mean(), flat.square().mean()
    return torch.stack(
        [mean, flat.std(correction=0), flat.norm(), (flat == 0).double().mean(), square.sqrt()]
    )  # fmt: skip


def dead(values: Tensor) -> Tensor:
    """() share of units that are zero for every row of a batch, at every place.

    A unit is a channel of (batch, channels, height, width...), or an element of the last axis.
    """
    axis = 1 if values.dim() > 3 else values.dim() - 1
    others = [place for place in range(values.dim()) if place != axis]
    return (values.detach() != 0).sum(dim=others).eq(0).double().mean()


def told(numbers: list[float]) -> Mapping[str, float | None]:
    """The first four numbers by name; what is not finite is None, so that it can be written as JSON."""
    return {name: rounded(number) for name, number in zip(NAMES, numbers, strict=False)}


def rounded(number: float) -> float | None:
    """Six significant digits; None for what is not finite."""
    return float(f"{number:.6g}") if isfinite(number) else None
