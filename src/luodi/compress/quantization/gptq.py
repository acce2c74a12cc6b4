"""Rounding column by column, the error of each made good by the columns after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from luodi.compress.calibration.inverse import DAMP, triangle
from luodi.compress.quantization.grids import Grid, Lines

if TYPE_CHECKING:
    from torch import Tensor

# Axes: P parts, R outputs, C inputs.
BLOCK = 128  # columns whose errors are carried on together
Columns = Literal["stored", "largest"]


def gptq(
    matrix: Tensor, products: Tensor, grid: Grid, columns: Columns = "stored", *, lines: Lines | None = None,
    zero: Tensor | None = None, block: int = BLOCK, damp: float = DAMP,
) -> tuple[Tensor, Lines]:  # fmt: skip
    """Integers and grid of (P, R, C) by GPTQ (arXiv 2210.17323); `products` (P, C, C) is x^T x.

    A group's grid spans what its columns hold when their turn comes, or is given by `lines`. `columns` largest: those
    with the largest inputs first, on grids fitted before. What was 0, or is true in `zero`, stays 0.
    """
    import torch

    zero = matrix == 0 if zero is None else zero
    if columns == "largest":
        order = products.diagonal(dim1=1, dim2=2).sum(0).argsort(descending=True, stable=True)
        lines = lines or grid.fitted(matrix)
        spread = Lines(*(grid.spread(line, matrix.shape[2]).expand_as(matrix)[:, :, order] for line in lines))
        within = products[:, order][:, :, order]
        integers = _walked(matrix[:, :, order], within, Grid(grid.bits, 1), spread, zero[:, :, order], block, damp)[0]
        back = torch.empty_like(integers)
        back[:, :, order] = integers
        return back, lines
    return _walked(matrix, products, grid, lines, zero, block, damp)


def _walked(
    matrix: Tensor, products: Tensor, grid: Grid, lines: Lines | None, zero: Tensor, block: int, damp: float
) -> tuple[Tensor, Lines]:
    import torch

    u, w = triangle(products, damp), matrix.float().clone()
    count, size = matrix.shape[2], grid.size(matrix.shape[2])
    grows = lines is None and isinstance(grid.group, int)
    chosen = lines or grid.fitted(w)
    scales, zeros = (line.clone() for line in chosen)
    integers = torch.empty_like(w)
    for start in range(0, count, block):
        end = min(start + block, count)
        errors = torch.zeros_like(w[:, :, start:end])
        for c in range(start, end):
            at = c // size if scales.shape[2] > 1 else 0
            if grows and c % size == 0:
                now = _current(w, errors, u, start, c, min(c + size, count))
                scales[:, :, at], zeros[:, :, at] = (line[:, :, 0] for line in grid.fitted(now))
            scale, middle = scales[:, :, at], zeros[:, :, at]
            whole = ((w[:, :, c] / scale).round() + middle).clamp(0, grid.most)
            whole = torch.where(zero[:, :, c], middle, whole)
            kept = (whole - middle) * scale
            error = (w[:, :, c] - kept) / u[:, c, c, None]
            w[:, :, c:end] -= error[:, :, None] * u[:, c, None, c:end]
            integers[:, :, c], errors[:, :, c - start] = whole, error
        w[:, :, end:] -= errors @ u[:, start:end, end:]
    return integers, Lines(scales, zeros)


def _current(w: Tensor, errors: Tensor, u: Tensor, start: int, c: int, last: int) -> Tensor:
    """Columns c..last as they stand: those beyond the block without the errors that have not been carried there yet."""
    import torch

    end = start + errors.shape[2]
    if last <= end:
        return w[:, :, c:last]
    return torch.cat([w[:, :, c:end], w[:, :, end:last] - errors @ u[:, start:end, end:last]], dim=2)
