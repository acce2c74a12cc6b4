"""What a layer should be for inputs that are no longer what they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

from luodi.compress.calibration.inverse import damped

if TYPE_CHECKING:
    from torch import Tensor

    from luodi.compress.calibration.sums import Sums


def corrected(matrix: Tensor, sums: Sums) -> Tensor:
    """The matrix (P, R, C) that gives of the inputs x as they are now what comes nearest to what W gave of y, the
    inputs as they were: W (y^T x) (x^T x)^-1, both with the same added to the diagonal; W where x is y."""
    import torch

    if sums.crossed is None or sums.products is None:
        return matrix
    products = damped(sums.products)
    crossed = sums.crossed.double() + (products - sums.products)
    return torch.linalg.solve(products, crossed.mT @ matrix.double().mT).mT.float()
