"""The grid that weights are rounded to: integers, a scale, and where zero lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

# Axes: P parts, R rows, C columns, G groups of columns.
SHARES, SHARE = 11, 0.05  # of a range that are tried
Group = Literal["channel", "tensor"] | int


class Lines(NamedTuple):
    """scale and zero, both (P, R, G), or (1, 1, 1) for all: a weight is (integer - zero) x scale."""

    scale: Tensor
    zero: Tensor


@dataclass(frozen=True)
class Grid:
    """`bits` bits a number; `group` columns of a row share a scale, or a whole row, or all.

    Symmetric: zero is the middle. Asymmetric: from the least to the largest number of the group, with a zero that is
    exactly an integer, so that pruned weights stay 0.
    """

    bits: int
    group: Group = "channel"
    symmetric: bool = True

    @property
    def most(self) -> int:
        """The largest integer; the smallest is 0."""
        return 2**self.bits - 1

    def size(self, columns: int) -> int:
        """Columns of a group."""
        return min(self.group, columns) if isinstance(self.group, int) else columns

    def fitted(self, matrix: Tensor, shrink: Tensor | float = 1.0) -> Lines:
        """The grid that spans the numbers of each group of (P, R, C), or a share of their range (P, R, G)."""
        import torch

        if self.group == "tensor":
            found = Grid(self.bits, "channel", self.symmetric).fitted(matrix.reshape(1, 1, -1), shrink)
            return Lines(found.scale, found.zero)
        size = self.size(matrix.shape[2])
        # Zeros that fill up a last short group stretch no range: every range holds 0.
        grouped = torch.nn.functional.pad(matrix.float(), (0, -matrix.shape[2] % size)).unflatten(2, (-1, size))
        high, low = grouped.amax(3).clamp(min=0) * shrink, grouped.amin(3).clamp(max=0) * shrink
        if self.symmetric:
            scale = stored(torch.maximum(high, -low) / (2 ** (self.bits - 1) - 0.5))
            return Lines(scale, torch.full_like(scale, 2 ** (self.bits - 1)))
        scale = stored((high - low) / self.most)
        return Lines(scale, (-low / scale).round().clamp(0, self.most))

    def integers(self, matrix: Tensor, lines: Lines) -> Tensor:
        """The nearest integers 0..most, as float32, of (P, R, C)."""
        scale, zero = (self.spread(line, matrix.shape[2]) for line in lines)
        return ((matrix / scale).round() + zero).clamp(0, self.most)

    def real(self, integers: Tensor, lines: Lines) -> Tensor:
        """What integers stand for."""
        scale, zero = (self.spread(line, integers.shape[2]) for line in lines)
        return (integers - zero) * scale

    def rounded(self, matrix: Tensor, lines: Lines) -> Tensor:
        """The nearest numbers on the grid."""
        return self.real(self.integers(matrix, lines), lines)

    def spread(self, line: Tensor, columns: int) -> Tensor:
        """(P, R, G) to (P, R, C)."""
        if line.shape[2] == 1:
            return line
        return line.repeat_interleave(self.size(columns), 2)[:, :, :columns]


def searched(matrix: Tensor, grid: Grid, costs: Tensor) -> Lines:
    """For each group of (P, R, C) the share of its range, 1, 0.95 ... 0.5, whose grid leaves least of squared errors,
    each times its column's cost (P, C)."""
    import torch

    count, size = matrix.shape[2], grid.size(matrix.shape[2])
    best, least = grid.fitted(matrix), None
    for step in range(SHARES):
        lines = grid.fitted(matrix, 1 - SHARE * step)
        errors = (grid.rounded(matrix, lines) - matrix).square() * costs[:, None]
        if grid.group == "tensor":
            sums = errors.sum().reshape(1, 1, 1)
        else:
            sums = torch.nn.functional.pad(errors, (0, -count % size)).unflatten(2, (-1, size)).sum(3)
        better = sums < (torch.inf if least is None else least)
        best = Lines(*(torch.where(better, new, old) for new, old in zip(lines, best, strict=True)))
        least = sums if least is None else torch.minimum(sums, least)
    return best


def stored(scale: Tensor) -> Tensor:
    """A scale as it will be kept: bfloat16, never 0."""
    import torch

    return scale.to(torch.bfloat16).float().clamp(min=1e-30)
