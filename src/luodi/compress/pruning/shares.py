"""How much of each layer goes when the least important weights of all layers go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from luodi.compress.calibration.inverse import triangle
from luodi.compress.calibration.matrix import matrix_of
from luodi.compress.calibration.walk import Calibration, Layers, sensitivity, walk
from luodi.compress.pruning.masks import lowest

if TYPE_CHECKING:
    from torch import Tensor, nn

KEPT = 0.05  # of each layer's weights, the dearest, stay whatever the others cost


def shares(
    calibration: Calibration, model: nn.Module, layers: Layers, weights: Mapping[str, Tensor], sparsity: float
) -> dict[str, float]:
    """Layer -> the share of its weights that goes, of all seen layers together round(sparsity x weights).

    A weight costs w^2 / (H^-1)_cc of its layer's outputs (the optimal brain surgeon's), times the mean square of the
    loss's slope at these outputs: Fisher's information in Kronecker factors (arXiv 1503.05671), one factor a number.
    """
    import torch

    slopes = sensitivity(calibration, model, layers)
    costs: dict[str, Tensor] = {}
    for name, sums in walk(calibration, model, layers, products=True, order="blocks"):
        if sums.products is not None:
            diagonal = triangle(sums.products).diagonal(dim1=1, dim2=2)[:, None]
            matrix = matrix_of(layers[name][0], weights[name])
            costs[name] = (slopes[name] * (matrix / diagonal).square()).flatten()
            dear = lowest(-costs[name], round(min(KEPT, (1 - sparsity) / 2) * costs[name].numel()))
            costs[name].masked_fill_(dear, torch.inf)
    if not costs:
        return {}
    sizes = [cost.numel() for cost in costs.values()]
    gone = lowest(torch.cat(list(costs.values())), round(sparsity * sum(sizes)))
    return {name: float(part.double().mean()) for name, part in zip(costs, gone.split(sizes), strict=True)}
