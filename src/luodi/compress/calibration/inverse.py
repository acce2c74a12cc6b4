"""The inverse of a layer's products, as a triangle: what second-order compression walks along."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

DAMP = 0.01  # of the mean of the diagonal, added to it, as GPTQ and SparseGPT do


def damped(products: Tensor, share: float = DAMP) -> Tensor:
    """Products (P, C, C) as float64 with something added to the diagonal, also where a column was always 0."""
    import torch

    whole = products.double()
    mean = whole.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)
    return whole + torch.diag_embed(torch.where(mean == 0, 1, share * mean).expand(-1, whole.shape[2]))


def triangle(products: Tensor, share: float = DAMP) -> Tensor:
    """Upper U (P, C, C) float32 with U^T U = H^-1: row i tells how column i's error moves onto those after it, given
    that those before it are settled (arXiv 2210.17323, step 3)."""
    import torch

    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(products, share)))
    return torch.linalg.cholesky(inverse, upper=True).float()
