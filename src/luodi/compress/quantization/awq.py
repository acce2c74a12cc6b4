"""Columns that carry large inputs are rounded on finer grids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from luodi.compress.quantization.grids import Grid

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 20  # exponents 0, 1/20, ... 19/20


def output_error(difference: Tensor, products: Tensor) -> Tensor:
    """Sum over all inputs of |difference x|^2, per row: (P, R, C) and x^T x (P, C, C) to (P, R)."""
    return ((difference @ products.float()) * difference).sum(2)


def awq(matrix: Tensor, products: Tensor, sizes: Tensor, grid: Grid) -> Tensor:
    """What each column is multiplied by before rounding, (C,), by AWQ (arXiv 2306.00978): mean |x| to the power that
    leaves the smallest error of the layer's outputs, powers from 0 (plain rounding) to 0.95.

    `sizes` (P, C) are the sums of |x|, `products` (P, C, C) x^T x; all parts share the factors.
    """
    import torch

    mean = sizes.mean(0)
    mean = mean.clamp(min=float(mean.max()) * 1e-4)
    best, least = torch.ones_like(mean), float("inf")
    for step in range(STEPS):
        factors = mean ** (step / STEPS)
        factors = factors / (factors.max() * factors.min()).sqrt()
        scaled = matrix * factors
        error = float(output_error(grid.rounded(scaled, grid.fitted(scaled)) / factors - matrix, products).sum())
        if error < least:
            best, least = factors, error
    return best
