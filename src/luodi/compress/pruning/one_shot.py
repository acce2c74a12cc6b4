"""Pruning with an eye on what a layer is given, without training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from luodi.compress.calibration.inverse import DAMP, triangle
from luodi.compress.calibration.targets import corrected
from luodi.compress.pruning.masks import lowest, patterned
from luodi.compress.pruning.refit import least_squares

if TYPE_CHECKING:
    from torch import Tensor

    from luodi.compress.calibration.sums import Sums

By = Literal["wanda", "sparsegpt", "corrected"]

# Axes: P parts, R outputs, C inputs.
BLOCK = 128  # columns whose mask is chosen together


def pruned(
    by: By,
    matrix: Tensor,
    sums: Sums,
    sparsity: float,
    pattern: tuple[int, int] | None = None,
    order: list[int] | None = None,
) -> Tensor:
    """matrix (P, R, C) pruned; of a pattern, in an order of its columns."""
    assert sums.squares is not None
    given = corrected(matrix, sums)
    if order is not None:
        given, matrix = given[:, :, order], matrix[:, :, order]
    if by == "wanda":
        found = wanda(given, sums.squares[:, order] if order is not None else sums.squares, sparsity, pattern)
    else:
        assert sums.products is not None
        products = sums.products[:, order][:, :, order] if order is not None else sums.products
        found = sparsegpt(given, products, sparsity, pattern, zero=matrix == 0)
        if by == "corrected":
            found = least_squares(given, found, products)
    if order is not None:
        back = found.clone()
        back[:, :, order] = found
        return back
    return found


def wanda(matrix: Tensor, squares: Tensor, sparsity: float, pattern: tuple[int, int] | None = None) -> Tensor:
    """matrix (P, R, C) without the lowest |W| ||x|| of each output, ||x||^2 being `squares` (P, C): round(sparsity x C)
    of each (arXiv 2306.11695); a pattern is (zeros, of so many)."""
    scores = matrix.abs() * squares.sqrt()[:, None]
    gone = patterned(scores, *pattern) if pattern else lowest(scores, round(sparsity * matrix.shape[2]))
    return matrix.masked_fill(gone, 0)


def sparsegpt(
    matrix: Tensor, products: Tensor, sparsity: float, pattern: tuple[int, int] | None = None, *, block: int = BLOCK,
    damp: float = DAMP, zero: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """matrix (P, R, C) without the weights that cost least, (w / U_cc)^2, column by column, what each costs being made
    good by the columns after it (arXiv 2301.00774); `products` (P, C, C) is x^T x.

    In each block of columns the same share of all outputs' weights goes; round(sparsity x R x C) in all. What was 0, or
    is true in `zero`, stays 0.
    """
    import torch

    u, w = triangle(products, damp), matrix.float().clone()
    parts, rows, columns = w.shape
    zero = matrix == 0 if zero is None else zero
    done = 0
    for start in range(0, columns, block):
        end = min(start + block, columns)
        count = round(sparsity * rows * end) - done
        done += count
        gone = zero[:, :, start:end].clone()
        if pattern is None:
            scores = _scores(w, u, zero, start, end)
            gone |= lowest(scores.reshape(parts, -1), count).view_as(scores)
        errors = torch.zeros_like(w[:, :, start:end])
        for c in range(start, end):
            if pattern is not None and (c - start) % pattern[1] == 0:
                last = min(c + pattern[1], end)
                gone[:, :, c - start : last - start] |= patterned(_scores(w, u, zero, c, last), *pattern)
            now = w[:, :, c]
            kept = now.masked_fill(gone[:, :, c - start], 0)
            error = (now - kept) / u[:, c, c, None]
            w[:, :, c:end] -= error[:, :, None] * u[:, c, None, c:end]
            w[:, :, c], errors[:, :, c - start] = kept, error
        w[:, :, end:] -= errors @ u[:, start:end, end:]
    return w


def _scores(w: Tensor, u: Tensor, zero: Tensor, start: int, end: int) -> Tensor:
    """What each weight costs; of one that is 0 already, nothing."""
    costs = (w[:, :, start:end] / u.diagonal(dim1=1, dim2=2)[:, None, start:end]).square()
    return costs.masked_fill(zero[:, :, start:end], -1)
