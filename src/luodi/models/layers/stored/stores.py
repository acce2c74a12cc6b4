"""How a weight is kept: as integers of few bits with scales, or as bfloat16."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from luodi.models.layers.stored.bits import bytes_of, packed, unpacked

# Axes: R rows (outputs, or rows of a table), C columns, G groups of columns.


class Rounded(nn.Module):
    """A weight of any shape (R, ...) as integers of `bits` bits, C numbers a row: (integer - zero) x scale.

    `group` columns share a scale, bfloat16 (R, G), or (1, 1) for all; `zero` uint8 of the same shape, without it the
    middle of the range; `columns` (C,) divides each column. `by_row` keeps rows on whole bytes, so that a table's can
    be looked up. What is in it is set by `fill`, or loaded.
    """

    packed: Tensor
    scale: Tensor
    zero: Tensor | None
    columns: Tensor | None

    def __init__(
        self, shape: tuple[int, ...], bits: int, group: int, *, whole: bool = False, zeros: bool = False,
        columns: bool = False, by_row: bool = False, device: torch.device | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape, self.bits, self.group = shape, bits, group
        self.rows, self.width = shape[0], int(torch.Size(shape[1:]).numel())
        size = (self.rows, bytes_of(self.width, bits)) if by_row else (bytes_of(self.rows * self.width, bits),)
        grid = (1, 1) if whole else (self.rows, -(-self.width // group))
        self.register_buffer("packed", torch.empty(size, dtype=torch.uint8, device=device))
        self.register_buffer("scale", torch.empty(grid, dtype=torch.bfloat16, device=device))
        self.register_buffer("zero", torch.empty(grid, dtype=torch.uint8, device=device) if zeros else None)
        self.register_buffer("columns", torch.empty(self.width, device=device) if columns else None)

    def fill(self, integers: Tensor, scale: Tensor, zero: Tensor | None = None, columns: Tensor | None = None) -> None:
        """integers 0..2^bits - 1 (R, C), scale and zero (R, G) or (1, 1)."""
        flat = integers if self.packed.dim() == 2 else integers.flatten()
        self.packed.copy_(packed(flat, self.bits))
        self.scale.copy_(scale)
        for mine, given in ((self.zero, zero), (self.columns, columns)):
            assert (mine is None) == (given is None)
            if mine is not None and given is not None:
                mine.copy_(given)

    def forward(self) -> Tensor:
        """The weight, float32."""
        count = self.width if self.packed.dim() == 2 else self.rows * self.width
        integers = unpacked(self.packed, self.bits, count).reshape(self.rows, self.width)
        return self._real(integers, self.scale, self.zero).reshape(self.shape)

    def looked_up(self, ids: Tensor) -> Tensor:
        """Rows of a table (..., C): only these become floats."""
        integers = unpacked(functional.embedding(ids, self.packed), self.bits, self.width)
        if self.scale.shape[0] == 1:
            return self._real(integers, self.scale, self.zero)
        zero = None if self.zero is None else functional.embedding(ids, self.zero)
        return self._real(integers, functional.embedding(ids, self.scale), zero)

    def _real(self, integers: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
        middle = float(2 ** (self.bits - 1)) if zero is None else self._spread(zero.float())
        weight = (integers - middle) * self._spread(scale.float())
        return weight if self.columns is None else weight / self.columns

    def _spread(self, grid: Tensor) -> Tensor:
        """(..., G) to (..., C), or what broadcasts to it."""
        if grid.shape[-1] == 1:
            return grid
        wide = grid[..., None].expand(*grid.shape, self.group)
        return wide.flatten(-2)[..., : self.width]


class Halved(nn.Module):
    """A weight as bfloat16: half of the bytes, three digits; float32 again where it is used."""

    kept: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", weight.detach().to(torch.bfloat16))

    def forward(self) -> Tensor:
        """The weight, float32."""
        return self.kept.float()

    def looked_up(self, ids: Tensor) -> Tensor:
        """Rows of a table: only these become float32."""
        return functional.embedding(ids, self.kept).float()
