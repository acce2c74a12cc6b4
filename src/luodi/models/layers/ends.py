"""The two ends of a network: named inputs to one vector, one vector to named outputs."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn

from luodi.core.spec import Spec


class Gather(nn.Module):
    """Named inputs side by side as one vector a row, sorted by name.

    Images and numbers are flattened, a category goes through a learned table. Gives (batch, width). Raises ValueError
    for a kind that has no fixed length.
    """

    def __init__(self, inputs: Mapping[str, Spec]) -> None:
        super().__init__()
        self.names = sorted(inputs)
        self.places: dict[str, int] = {}
        # A list, not a dict of modules: columns may be named "values" or "a.b", which module names may not.
        self.tables = nn.ModuleList()
        self.width = 0
        for name in self.names:
            spec = inputs[name]
            if spec.kind == "category" and spec.shape == ():
                self.places[name] = len(self.tables)
                self.tables.append(nn.Embedding(spec.size, table_width(spec.size)))
                self.width += table_width(spec.size)
            else:
                self.width += flat_width(name, spec)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        columns = [self._column(name, batch[name]) for name in self.names]
        return columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)

    def _column(self, name: str, tensor: Tensor) -> Tensor:
        if name in self.places:
            return self.tables[self.places[name]](tensor)
        return tensor.flatten(1)


class Heads(nn.Module):
    """One linear layer for each named output, sorted by name. Takes (batch, width), gives {name: (batch, *shape)}."""

    def __init__(self, width: int, outputs: Mapping[str, Spec]) -> None:
        super().__init__()
        self.names = sorted(outputs)
        self.shapes = {name: outputs[name].shape for name in self.names}
        self.layers = nn.ModuleList(nn.Linear(width, flat_width(name, outputs[name])) for name in self.names)

    def forward(self, vector: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, layer in zip(self.names, self.layers, strict=True):
            output = layer(vector)
            shape = self.shapes[name]
            found[name] = output if len(shape) == 1 else output.unflatten(1, shape)
        return found


def flat_width(name: str, spec: Spec) -> int:
    """How many numbers a tensor holds a row; ValueError if its length is free or its kind is no plain number."""
    sides = [side for side in spec.shape if isinstance(side, int)]
    if spec.kind not in ("image", "number", "category") or len(sides) != len(spec.shape) or not sides:
        raise ValueError(
            f"{name}: this network takes images, numbers and categories of fixed size, got {spec.kind} {spec.shape}"
        )
    return prod(sides)


def table_width(size: int) -> int:
    """Numbers that stand for one label: about half as many as there are labels, 2 to 32."""
    return max(2, min(32, (size + 1) // 2))
