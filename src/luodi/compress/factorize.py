"""Splits layers into two thinner ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from luodi.compress.calibration.inverse import damped
from luodi.compress.calibration.matrix import matrix_of
from luodi.compress.calibration.walk import Order, calibration_of, walk
from luodi.core.bundle import Bundle, Edit
from luodi.core.errors import LuodiError
from luodi.core.step import Facts, Step
from luodi.core.thing import Json

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.run import Run
    from luodi.core.task import Task

TINY = 1e-6  # of all products, added to their diagonal: columns that say the same leave them without an inverse


class Factorize(Step):
    """Splits linear and convolution layers into two of low rank, by singular values.

    `by: weights` keeps the largest singular values of the weights; `by: inputs` those of what the layer gives on `rows`
    rows of the training split, whose error is then the smallest that a rank can have (SVD-LLM, arXiv 2403.07378:
    the weights times a square root of the inputs' products). The rank is the least that keeps `energy` of the squares,
    or the largest at which a layer keeps `share` of its numbers. A layer that would not get smaller, a grouped or
    transposed convolution and a layer whose weight is shared stay as they are.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model", "float"})
    excludes: ClassVar[frozenset[str]] = frozenset({"adapters"})  # they belong to the layers as they are

    energy: Annotated[float, Field(gt=0, le=1)] = 0.95  # share of the sum of squared singular values
    share: Annotated[float, Field(gt=0, lt=1)] | None = None  # of a layer's weights; given: energy does not count
    by: Literal["weights", "inputs"] = "weights"
    rows: Annotated[int, Field(ge=1)] = 128  # of the training split, for inputs
    order: Order = (
        "layers"  # what a layer is given: by all before it split, by the blocks before it, by the whole model
    )

    @classmethod
    def offers(cls) -> Sequence[Mapping[str, Json]]:
        return tuple({"energy": energy, "by": "inputs"} for energy in (0.99, 0.95, 0.85))

    def facts(self, have: frozenset[str]) -> Facts:
        rows = frozenset() if self.by == "weights" else frozenset({"split"})
        return Facts(self.needs | rows, self.gives, self.ends, self.excludes)

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        import torch

        from luodi.models.layers.replaced import put

        assert bundle.model is not None
        model, plan, left, energies = bundle.model, {}, {}, {}
        layers = _layers(model)
        with torch.no_grad():
            for done, (name, products) in enumerate(self._walked(bundle, layers, run)):
                run.log("progress", {"done": done, "total": len(layers), "what": "layers"})
                layer = layers[name]
                first, second, kept = self._halves(matrix_of(layer, layer.weight.detach())[0], products)
                size = layer.weight.numel()
                if first.numel() + second.numel() >= size:
                    left[name] = f"rank {len(first)} of {min(first.shape[1], len(second))} would not make it smaller"
                    continue
                plan[name], energies[name] = {"rank": len(first)}, kept
                put(model, name, _filled(layer, first, second))
        if not plan:
            raise LuodiError("factorize: no layer would get smaller at this rank; give a smaller energy or share")
        edit = Edit(step=self, plan=plan, version=self.version, packages={"torch": torch.__version__})
        return bundle.with_model(model, edit=edit).noting(ranks=plan, energies=energies, left=left)

    def restore(self, task: Task, model: nn.Module, plan: Mapping[str, Json]) -> nn.Module:
        from luodi.models.layers.low_rank import LowRank
        from luodi.models.layers.replaced import put

        for name, said in plan.items():
            put(model, name, LowRank.like(model.get_submodule(name), said["rank"]))
        return model

    def _walked(self, bundle: Bundle, layers: Mapping[str, Any], run: Run) -> Any:
        """(name, products of its inputs (C, C) or None) of each layer."""
        assert bundle.model is not None
        if self.by == "weights":
            return ((name, None) for name in layers)
        calibration = calibration_of(bundle, self.rows, run)
        held = {name: [layer] for name, layer in layers.items()}
        walked = walk(calibration, bundle.model, held, products=True, order=self.order)
        return ((name, sums.products[0] if sums.products is not None else None) for name, sums in walked)

    def _halves(self, weight: Tensor, products: Tensor | None) -> tuple[Tensor, Tensor, float]:
        """first (rank, C) and second (R, rank), whose product is nearest to the weight (R, C), and the share of the
        squares that they keep."""
        import torch

        whole = weight.double()
        root = back = None
        if products is not None:
            values, vectors = torch.linalg.eigh(damped(products[None], TINY)[0])
            scale = values.clamp_min(TINY * float(values.mean())).sqrt()  # rounding makes the least of them negative
            root, back = vectors * scale, (vectors / scale).mT
            whole = whole @ root
        left, values, right = torch.linalg.svd(whole, full_matrices=False)
        squares = values.square().cumsum(0) / values.square().sum().clamp_min(1e-300)
        rank = self._rank(squares, weight.shape)
        balance = values[:rank].sqrt()  # both halves alike in size, which rounding to few bits wants
        first = balance[:, None] * right[:rank]
        if back is not None:
            first = first @ back
        return first.to(weight.dtype), (left[:, :rank] * balance).to(weight.dtype), float(squares[rank - 1])

    def _rank(self, squares: Tensor, shape: Sequence[int]) -> int:
        if self.share is not None:
            return max(int(self.share * shape[0] * shape[1] / (shape[0] + shape[1])), 1)
        return min(int((squares < self.energy - 1e-12).sum()) + 1, len(squares))


def _layers(model: nn.Module) -> dict[str, Any]:
    """The layers that can be split, by name."""
    from torch import nn

    held: dict[int, int] = {}  # under how many names a weight is found
    for _, layer in model.named_modules(remove_duplicate=False):
        for weight in layer._parameters.values():
            held[id(weight)] = held.get(id(weight), 0) + 1
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return {
        name: layer
        for name, layer in model.named_modules()
        if name and type(layer) in kinds and held[id(layer.weight)] == 1 and getattr(layer, "groups", 1) == 1
    }


def _filled(layer: Any, first: Tensor, second: Tensor) -> nn.Module:
    """The two layers with these matrices and the layer's bias."""
    from luodi.models.layers.low_rank import LowRank

    made: Any = LowRank.like(layer, len(first))
    made.first.weight.copy_(first.reshape(made.first.weight.shape))
    made.second.weight.copy_(second.reshape(made.second.weight.shape))
    if layer.bias is not None:
        made.second.bias.copy_(layer.bias)
    made.train(layer.training)
    return made
