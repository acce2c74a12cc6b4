"""Stores weights as 8-bit integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from luodi.core.bundle import Bundle, Edit
from luodi.core.step import Step
from luodi.core.thing import Json

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.run import Run
    from luodi.core.task import Task

# What a layer becomes, as the plan of the edit names it. A linear layer that shares a table's weight: kind and table.
LINEAR, CONVOLUTION, DYNAMIC, TABLE = "int8 linear", "int8 convolution", "int8 dynamic linear", "int8 embedding"
OF = " of the table "
NARROW = 8  # numbers a row; in a narrower table the scales take what the integers save


class Quantize(Step):
    """Stores the weights of linear and convolution layers and tables of vectors as int8, one scale an output or row.

    scale = amax / 127.5, integers in -128..127; the forward dequantises, so answers are float arithmetic on rounded
    weights. `activations: int8` also rounds what enters a linear layer, row by row, and multiplies in integers
    (LLM.int8's vector-wise scheme, arXiv 2208.07339, without its outliers); convolutions stay weight-only. An output
    layer that is tied to a table stays tied.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model", "float"})
    ends: ClassVar[frozenset[str]] = frozenset({"float"})

    weights: Literal["int8"] = "int8"
    activations: Literal["float", "int8"] = "float"

    @classmethod
    def offers(cls) -> Sequence[Mapping[str, Json]]:
        return ({}, {"activations": "int8"})

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
        from luodi.models.layers.replaced import put

        made: dict[int, nn.Module] = {}  # a layer that is used under two names stays one layer
        # Tables first: a layer that is tied to one is given the new one.
        for name, kind in sorted(plan.items(), key=lambda one: OF in str(one[1])):
            layer = model.get_submodule(name)
            if layer in made.values():  # its owner is used under two names
                continue
            if id(layer) not in made:
                made[id(layer)] = _layer(layer, *str(kind).split(OF), model=model)
            if not name:
                return made[id(layer)]
            put(model, name, made[id(layer)])
        return model

    def plan(self, model: nn.Module) -> tuple[dict[str, str], dict[str, str]]:
        """(layer -> what it becomes, layer -> why it stays)."""
        owners = _owners(model)
        plan, left = {}, {}
        for name, layer in model.named_modules(remove_duplicate=False):
            weight = layer._parameters.get("weight")
            if weight is None or weight.dim() < 2:
                continue
            kind, sharing = self._kind(layer), owners[id(weight)]
            if kind is None:
                left[name] = type(layer).__name__
            elif kind == TABLE and weight.shape[1] < NARROW:
                left[name] = f"a table of {weight.shape[1]} numbers a row"
            elif len(sharing) == 1:
                plan[name] = kind
            elif (table := _table_among(sharing)) is None:
                left[name] = "its weight is shared with another layer"
            else:
                plan[name] = kind if layer is sharing[table] else f"{kind}{OF}{table}"
        return plan, left

    def _kind(self, layer: nn.Module) -> str | None:
        """What a layer becomes if its weight is its own, None if it stays."""
        from torch import nn

        if type(layer) is nn.Linear:
            return LINEAR if self.activations == "float" else DYNAMIC
        if type(layer) in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
            return CONVOLUTION
        return TABLE if _is_table(layer) else None


def _owners(model: nn.Module) -> dict[int, dict[str, nn.Module]]:
    """Weight -> the layers that hold it, by name."""
    found: dict[int, dict[str, nn.Module]] = {}
    for name, layer in model.named_modules():
        for weight in layer._parameters.values():
            held = found.setdefault(id(weight), {})
            if not any(layer is other for other in held.values()):
                held[name] = layer
    return found


def _table_among(sharing: Mapping[str, nn.Module]) -> str | None:
    """The table whose weight the others, linear layers all, share; None if they are not of that kind."""
    from torch import nn

    tables = [name for name, layer in sharing.items() if _is_table(layer)]
    others = [layer for name, layer in sharing.items() if name not in tables]
    plain = len(tables) == 1 or all(type(sharing[name]) is nn.Embedding for name in tables)
    return tables[0] if tables and plain and all(type(layer) is nn.Linear for layer in others) else None


def _is_table(layer: nn.Module) -> bool:
    from torch import nn

    from luodi.models.layers.int8_embedding import looks_up

    return isinstance(layer, nn.Embedding) and looks_up(layer)


def _layer(layer: Any, kind: str, table: str | None = None, *, model: nn.Module) -> nn.Module:
    from luodi.models.layers.int8_dynamic import Int8DynamicLinear
    from luodi.models.layers.int8_embedding import Int8Embedding, Int8Tied
    from luodi.models.layers.int8_weight import Int8Conv, Int8Linear

    if table is not None:
        owner: Any = model.get_submodule(table)
        return owner if kind == TABLE else Int8Tied(layer, owner, dynamic=kind == DYNAMIC)
    makers: dict[str, Callable[[Any], nn.Module]] = {
        LINEAR: Int8Linear,
        CONVOLUTION: Int8Conv,
        DYNAMIC: Int8DynamicLinear,
        TABLE: Int8Embedding,
    }
    return makers[kind](layer)
