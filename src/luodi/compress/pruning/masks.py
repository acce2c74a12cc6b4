"""Which weights go: those of the lowest scores, in exact numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from luodi.compress.calibration.matrix import matrix_of, places_of

if TYPE_CHECKING:
    from torch import Tensor, nn

Pattern = Literal["2:4", "4:8"]
PATTERNS: dict[str, tuple[int, int]] = {"2:4": (2, 4), "4:8": (4, 8)}  # (zeros, of so many neighbours)


def lowest(scores: Tensor, count: int) -> Tensor:
    """True at exactly `count` of the lowest scores along the last axis; of equal ones the first go."""
    import torch

    order = scores.argsort(dim=-1, stable=True)[..., :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, order, True)


def patterned(scores: Tensor, zeros: int, of: int) -> Tensor:
    """True at `zeros` of every `of` neighbours along the last axis; of a shorter rest at that share, rounded down."""
    import torch

    whole = scores.shape[-1] // of * of
    full = lowest(scores[..., :whole].unflatten(-1, (-1, of)), zeros).flatten(-2) if whole else scores[..., :0].bool()
    rest = scores[..., whole:]
    return torch.cat([full, lowest(rest, rest.shape[-1] * zeros // of)], dim=-1)


def channels_first(layer: nn.Module, weight: Tensor) -> list[int]:
    """Columns with the channels of one place of the kernel beside each other, as sparse kernels want their patterns."""
    columns, places = matrix_of(layer, weight).shape[2], places_of(layer, weight)
    return [column for place in range(places) for column in range(place, columns, places)]
