"""Sets the smallest weights to zero."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from luodi.core.bundle import Bundle, Edit
from luodi.core.step import Step

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.run import Run


class Prune(Step):
    """Sets the smallest weights of linear and convolution layers to zero.

    Magnitude pruning (Han et al. 2015, arXiv 1506.02626): exactly round(sparsity x weights) become zero, in each
    layer or over all of them at once; of equal magnitudes the first in memory goes. Biases, norms and embeddings stay.
    The zeros live in the weights: shapes, and so the file's size and the time of dense kernels, stay as they were.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model", "float"})
    thins: ClassVar[bool] = True

    sparsity: float = Field(0.5, ge=0, lt=1)  # share of the weights that become zero
    scope: Literal["layer", "global"] = "layer"

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        import torch

        assert bundle.model is not None
        weights = dict(prunable(bundle.model))
        groups = [list(weights.values())] if self.scope == "global" else [[weight] for weight in weights.values()]
        with torch.no_grad():
            for group in groups:
                _zero_smallest(group, self.sparsity)
        zeros = {name: 1 - int(weight.count_nonzero()) / weight.numel() for name, weight in weights.items()}
        pruned = bundle.with_model(bundle.model, edit=Edit(step=self, version=self.version))
        return pruned.noting(sparsity=zeros)


def prunable(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights of linear and (transposed) convolution layers, each tensor once, by layer name."""
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    seen: set[int] = set()
    for name, layer in model.named_modules():
        # A parametrised layer computes its weight: there is nothing to write zeros into.
        weight = layer._parameters.get("weight") if isinstance(layer, nn.Linear | _ConvNd) else None
        if weight is not None and id(weight) not in seen:
            seen.add(id(weight))
            yield name, weight


def _zero_smallest(weights: list[Tensor], sparsity: float) -> None:
    """Zeroes exactly round(sparsity x numbers) of the numbers of all these tensors together, in place."""
    import torch

    sizes = torch.cat([weight.detach().abs().flatten().float() for weight in weights]) if weights else torch.empty(0)
    count = round(sparsity * sizes.numel())
    if count == 0:
        return
    threshold = sizes.kthvalue(count).values
    smaller, ties = sizes < threshold, (sizes == threshold).nonzero().flatten()
    smaller[ties[: count - int(smaller.sum())]] = True
    for weight, gone in zip(weights, smaller.split([weight.numel() for weight in weights]), strict=True):
        weight.masked_fill_(gone.view_as(weight), 0)
