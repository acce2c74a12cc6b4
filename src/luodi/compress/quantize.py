"""Stores weights as 8-bit integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from luodi.core.bundle import Bundle, Edit
from luodi.core.step import Step
from luodi.core.thing import Json

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.run import Run
    from luodi.core.task import Task

# What a layer becomes, as the plan of the edit names it.
LINEAR, CONVOLUTION, DYNAMIC = "int8 linear", "int8 convolution", "int8 dynamic linear"


class Quantize(Step):
    """Stores the weights of linear and convolution layers as int8, one scale an output channel.

    scale = amax / 127.5, integers in -128..127; the forward dequantises, so answers are float arithmetic on rounded
    weights. `activations: int8` also rounds what enters a linear layer, row by row, and multiplies in integers
    (LLM.int8's vector-wise scheme, arXiv 2208.07339, without its outliers); convolutions stay weight-only.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model", "float"})
    ends: ClassVar[frozenset[str]] = frozenset({"float"})

    weights: Literal["int8"] = "int8"
    activations: Literal["float", "int8"] = "float"

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        import torch

        assert bundle.model is not None
        plan, left = self.plan(bundle.model)
        model = self.restore(bundle.task, bundle.model, plan)
        edit = Edit(step=self, plan=plan, version=self.version, packages={"torch": torch.__version__})
        changed = bundle.with_model(model, edit=edit)
        return changed.replace(facts=changed.facts - {"float"}).noting(layers=plan, left_float=left)

    def restore(self, task: Task, model: nn.Module, plan: Mapping[str, Json]) -> nn.Module:
        """Replaces the plan's layers; on the meta device the new buffers are shapes, filled later."""
        made: dict[int, nn.Module] = {}  # a layer that is used under two names stays one layer
        for name, kind in plan.items():
            layer = model.get_submodule(name)
            if layer in made.values():  # its owner is used under two names
                continue
            new = made[id(layer)] = made[id(layer)] if id(layer) in made else _layer(layer, kind)
            if not name:
                return new
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, new)
        return model

    def plan(self, model: nn.Module) -> tuple[dict[str, str], dict[str, str]]:
        """(layer -> what it becomes, layer -> why it stays)."""
        from torch import nn

        owners: dict[int, int] = {}
        for layer in model.modules():
            for weight in layer._parameters.values():
                owners[id(weight)] = owners.get(id(weight), 0) + 1
        plan, left = {}, {}
        for name, layer in model.named_modules(remove_duplicate=False):
            weight = layer._parameters.get("weight")
            if weight is None or weight.dim() < 2:
                continue
            if type(layer) not in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d):
                left[name] = type(layer).__name__
            elif owners[id(weight)] > 1:
                left[name] = "its weight is shared with another layer"
            elif type(layer) is nn.Linear:
                plan[name] = LINEAR if self.activations == "float" else DYNAMIC
            else:
                plan[name] = CONVOLUTION
        return plan, left


def _layer(layer: nn.Module, kind: str) -> nn.Module:
    from luodi.models.layers.int8_dynamic import Int8DynamicLinear
    from luodi.models.layers.int8_weight import Int8Conv, Int8Linear

    makers: dict[str, Callable[[Any], nn.Module]] = {
        LINEAR: Int8Linear,
        CONVOLUTION: Int8Conv,
        DYNAMIC: Int8DynamicLinear,
    }
    return makers[kind](layer)
