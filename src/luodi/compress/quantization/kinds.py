"""Which layers are kept in fewer bits, and as what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

# What a layer becomes, as the plan of the edit names it. A linear layer that shares a table's weight: kind and table.
LINEAR, CONVOLUTION, TABLE = " linear", " convolution", " embedding"
DYNAMIC = "int8 dynamic linear"
OF = " of the table "
NARROW = 8  # numbers a row; in a narrower table the scales take what the integers save

Kind = Callable[["nn.Module"], str | None]  # what a layer becomes if its weight is its own, None if it stays


def planned(model: nn.Module, kind_of: Kind, narrow: int = NARROW) -> tuple[dict[str, str], dict[str, str]]:
    """(layer -> what it becomes, layer -> why it stays)."""
    owners = _owners(model)
    plan, left = {}, {}
    for name, layer in model.named_modules(remove_duplicate=False):
        weight = layer._parameters.get("weight")
        if weight is None or weight.dim() < 2:
            continue
        kind, sharing = kind_of(layer), owners[id(weight)]
        if kind is None:
            left[name] = type(layer).__name__
        elif kind.endswith(TABLE) and weight.shape[1] < narrow:
            left[name] = f"a table of {weight.shape[1]} numbers a row"
        elif len(sharing) == 1:
            plan[name] = kind
        elif (table := _table_among(sharing)) is None:
            left[name] = "its weight is shared with another layer"
        else:
            of_table = str(kind_of(sharing[table])).removesuffix(TABLE)
            tied = f"{of_table}{LINEAR}" if kind.endswith(LINEAR) and kind != DYNAMIC else kind
            plan[name] = kind if layer is sharing[table] else f"{tied}{OF}{table}"
    return plan, left


def shape_of(layer: nn.Module) -> str | None:
    """LINEAR, CONVOLUTION or TABLE, None of another kind."""
    from torch import nn

    if type(layer) is nn.Linear:
        return LINEAR
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


def _is_table(layer: Any) -> bool:
    from torch import nn

    from luodi.models.layers.int8_embedding import looks_up

    return isinstance(layer, nn.Embedding) and looks_up(layer)
