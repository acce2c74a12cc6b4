"""Layers of fewer bits in the place of others, as a plan names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from luodi.compress.calibration.matrix import matrix_of
from luodi.compress.quantization.codes import Codes, nearest
from luodi.compress.quantization.kinds import CONVOLUTION, DYNAMIC, LINEAR, OF, TABLE

if TYPE_CHECKING:
    from torch import nn

    from luodi.compress.quantization.grids import Grid
    from luodi.core.thing import Json
    from luodi.models.layers.stored.layers import Store


def built(
    model: nn.Module, plan: Mapping[str, Json], grid: Grid | None, *, columns: bool, codes: Mapping[int, Codes]
) -> nn.Module:
    """Replaces the plan's layers; on the meta device the new buffers are shapes, filled later. `columns`: linear and
    convolution layers keep a factor a column."""
    from luodi.models.layers.replaced import put

    made: dict[int, nn.Module] = {}  # a layer that is used under two names stays one layer
    # Tables first: a layer that is tied to one is given the new one.
    for name, kind in sorted(plan.items(), key=lambda one: OF in str(one[1])):
        layer = model.get_submodule(name)
        if any(layer is one for one in made.values()):  # its owner is used under two names
            continue
        if id(layer) not in made:
            what, _, table = str(kind).partition(OF)
            if table:
                made[id(layer)] = _tied(layer, what, model.get_submodule(table))
            elif what.startswith("int8 "):
                made[id(layer)] = _int8(layer, what)
            else:
                store = _store(layer, what, grid, columns=columns, codes=codes.get(id(layer)))
                made[id(layer)] = _stored(layer, what, store)
        if not name:
            return made[id(layer)]
        put(model, name, made[id(layer)])
    return model


def _tied(layer: Any, what: str, owner: Any) -> nn.Module:
    from luodi.models.layers.int8_embedding import Int8Embedding, Int8Tied
    from luodi.models.layers.stored.layers import StoredTied

    if what.endswith(TABLE):
        return owner
    if isinstance(owner, Int8Embedding):
        return Int8Tied(layer, owner, dynamic=what == DYNAMIC)
    return StoredTied(layer, owner)


def _int8(layer: Any, what: str) -> nn.Module:
    from luodi.models.layers.int8_dynamic import Int8DynamicLinear
    from luodi.models.layers.int8_embedding import Int8Embedding
    from luodi.models.layers.int8_weight import Int8Conv, Int8Linear

    makers: dict[str, Callable[[Any], nn.Module]] = {
        f"int8{LINEAR}": Int8Linear,
        f"int8{CONVOLUTION}": Int8Conv,
        DYNAMIC: Int8DynamicLinear,
        f"int8{TABLE}": Int8Embedding,
    }
    return makers[what](layer)


def _store(layer: Any, what: str, grid: Grid | None, *, columns: bool, codes: Codes | None) -> Store:
    from luodi.models.layers.stored.stores import Halved, Rounded

    weight = layer.weight
    if what.startswith("bf16"):
        return Halved(weight)
    assert grid is not None
    by_row = what.endswith(TABLE)
    store = Rounded(
        tuple(weight.shape), grid.bits, grid.size(weight.shape[1:].numel()), whole=grid.group == "tensor",
        zeros=not grid.symmetric, columns=columns and not by_row, by_row=by_row, device=weight.device,
    )  # fmt: skip
    if not weight.is_meta:
        (codes or nearest(matrix_of(layer, weight.detach()), grid)).into(store)
    return store


def _stored(layer: Any, what: str, store: Store) -> nn.Module:
    from luodi.models.layers.stored.layers import StoredConv, StoredEmbedding, StoredLinear

    if what.endswith(TABLE):
        return StoredEmbedding(layer, store)
    return StoredConv(layer, store) if what.endswith(CONVOLUTION) else StoredLinear(layer, store)
