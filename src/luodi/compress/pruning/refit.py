"""The weights that stay, as good as they can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from luodi.compress.calibration.inverse import DAMP, damped

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = 60  # of conjugate gradients; each solves all rows of all parts at once


def least_squares(wanted: Tensor, begun: Tensor, products: Tensor, *, damp: float = DAMP) -> Tensor:
    """The weights (P, R, C) that are 0 where `begun` is and whose outputs come nearest to those of `wanted`:
    row by row least of (w - wanted) H (w - wanted)^T, by preconditioned conjugate gradients from `begun`."""
    h = damped(products, damp)
    stays, diagonal = (begun != 0).double(), h.diagonal(dim1=1, dim2=2)[:, None]
    w = begun.double().clone()
    residual = ((wanted.double() - w) @ h) * stays
    scaled = residual / diagonal
    way, size = scaled.clone(), (residual * scaled).sum(2, keepdim=True)
    for _ in range(ROUNDS):
        image = (way @ h) * stays
        step = size / (way * image).sum(2, keepdim=True).clamp(min=1e-300)
        w += step * way
        residual -= step * image
        scaled = residual / diagonal
        after = (residual * scaled).sum(2, keepdim=True)
        way, size = scaled + after / size.clamp(min=1e-300) * way, after
    return w.float()
