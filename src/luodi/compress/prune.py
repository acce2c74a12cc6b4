"""Sets the smallest weights to zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from luodi.compress.calibration.matrix import matrix_of, weight_of
from luodi.compress.calibration.walk import Order, calibration_of, holding, walk
from luodi.compress.pruning.masks import PATTERNS, channels_first, patterned
from luodi.compress.pruning.one_shot import pruned
from luodi.compress.pruning.shares import shares
from luodi.core.bundle import Bundle, Edit
from luodi.core.step import Facts, Step
from luodi.core.thing import WrongThing

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.run import Run


class Prune(Step):
    """Sets the weights of linear and convolution layers that matter least to zero.

    By magnitude (Han et al. 2015, arXiv 1506.02626): exactly round(sparsity x weights) become zero, in each layer or
    over all of them at once; of equal magnitudes the first in memory goes. By what the layers are given on `rows` rows
    of the training split: `wanda` (arXiv 2306.11695) weighs magnitudes with it, output by output; `sparsegpt` (arXiv
    2301.00774) also lets the weights that stay make good for the others; `corrected` lets them make good for the layers
    before as well, and solves for them at the end. `scope: global` of these two gives each layer the share that costs
    the loss least (arXiv 1503.05671). A `pattern` zeroes 2 of every 4 neighbouring
    inputs, or 4 of 8; what is left over at a row's end at that share, rounded down. Biases, norms and embeddings stay.
    The zeros live in the weights: shapes, and so the file's size and the time of dense kernels, stay as they were.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model", "float"})
    thins: ClassVar[bool] = True

    sparsity: float = Field(0.5, ge=0, lt=1)  # share of the weights that become zero
    scope: Literal["layer", "global"] = "layer"
    by: Literal["magnitude", "wanda", "sparsegpt", "corrected"] = "magnitude"
    pattern: Literal["none", "2:4", "4:8"] = "none"
    rows: int = Field(128, ge=1)  # of the training split, for all but magnitude
    order: Order = "layers"  # once: every layer is looked at in one pass over the rows, before any is changed

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.scope == "global" and (self.by == "wanda" or self.pattern != "none"):
            raise WrongThing(
                [(("scope",), f"{self.by}, pattern {self.pattern}: counted in each layer; take scope layer")]
            )
        if self.pattern != "none" and self.sparsity != 0.5:
            raise WrongThing([(("sparsity",), f"{self.pattern} is half of the weights; leave sparsity at 0.5")])
        return self

    def facts(self, have: frozenset[str]) -> Facts:
        rows = frozenset() if self.by == "magnitude" else frozenset({"split"})
        rows |= {"loss"} if rows and self.scope == "global" else frozenset()
        return Facts(self.needs | rows, self.gives, self.ends, self.excludes)

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        import torch

        assert bundle.model is not None
        weights = dict(prunable(bundle.model))
        unseen: list[str] = []
        with torch.no_grad():
            if self.scope == "global" and self.by == "magnitude":
                _zero_smallest(list(weights.values()), self.sparsity)
            elif self.by == "magnitude":
                self._by_magnitude(bundle.model, weights)
            else:
                unseen = self._by_inputs(bundle, weights, run)
        zeros = {name: 1 - int(weight.count_nonzero()) / weight.numel() for name, weight in weights.items()}
        after = bundle.with_model(bundle.model, edit=Edit(step=self, version=self.version))
        return after.noting(sparsity=zeros, **({"by_magnitude": unseen} if unseen else {}))

    def _by_magnitude(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        for name, weight in weights.items():
            if self.pattern == "none":
                _zero_smallest([weight], self.sparsity)
            else:
                layer = model.get_submodule(name)
                matrix, order = matrix_of(layer, weight), channels_first(layer, weight)
                gone = patterned(matrix[:, :, order].abs(), *PATTERNS[self.pattern])
                matrix = matrix.clone()
                matrix[:, :, order] = matrix[:, :, order].masked_fill(gone, 0)
                weight.copy_(weight_of(layer, matrix, tuple(weight.shape)))

    def _by_inputs(self, bundle: Bundle, weights: Mapping[str, Tensor], run: Run) -> list[str]:
        """Prunes each layer as the walk comes by; gives the names of those that no row reached."""
        model = bundle.model
        assert model is not None and self.by != "magnitude"
        holders, unseen, pattern = holding(model, weights), [], PATTERNS.get(self.pattern)
        calibration = calibration_of(bundle, self.rows, run)
        whole = deepcopy(model) if self.by == "corrected" and self.order != "once" else None
        share = shares(calibration, model, holders, weights, self.sparsity) if self.scope == "global" else {}
        walked = walk(calibration, model, holders, products=self.by != "wanda", order=self.order, whole=whole)
        for done, (name, sums) in enumerate(walked):
            run.log("progress", {"done": done, "total": len(weights), "what": "layers"})
            layer, weight = holders[name][0], weights[name]
            if sums.squares is None:
                self._by_magnitude(model, {name: weight})
                unseen.append(name)
                continue
            order = channels_first(layer, weight) if pattern else None
            matrix = pruned(self.by, matrix_of(layer, weight), sums, share.get(name, self.sparsity), pattern, order)
            weight.copy_(weight_of(layer, matrix, tuple(weight.shape)))
        return unseen


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
