"""The grid that weights are rounded to: integers, a scale, and where zero lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

# Axes: P parts, R rows, C columns, G groups of columns.
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

    def fitted(self, matrix: Tensor) -> Lines:
        """The grid that spans the numbers of each group of (P, R, C)."""
        import torch

        if self.group == "tensor":
            found = Grid(self.bits, "channel", self.symmetric).fitted(matrix.reshape(1, 1, -1))
            return Lines(found.scale, found.zero)
        size = self.size(matrix.shape[2])
        # Zeros that fill up a last short group stretch no range: every range holds 0.
        grouped = torch.nn.functional.pad(matrix.float(), (0, -matrix.shape[2] % size)).unflatten(2, (-1, size))
        high, low = grouped.amax(3).clamp(min=0), grouped.amin(3).clamp(max=0)
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


def stored(scale: Tensor) -> Tensor:
    """A scale as it will be kept: bfloat16, never 0."""
    import torch

    return scale.to(torch.bfloat16).float().clamp(min=1e-30)
