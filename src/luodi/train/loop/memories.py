"""Several memories as one, and the memory of plain numbers: what a checkpoint holds besides the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luodi.core.thing import Json

if TYPE_CHECKING:
    from torch import Tensor

    from luodi.train.loop.movers import Memory


@dataclass(frozen=True)
class Joined:
    """Memories by name, as one."""

    parts: Mapping[str, Memory]

    def tensors(self) -> Mapping[str, Tensor]:
        return {f"{name}/{key}": tensor for name, part in self.parts.items() for key, tensor in part.tensors().items()}

    def facts(self) -> Json:
        return {name: part.facts() for name, part in self.parts.items()}

    def restore(self, tensors: Mapping[str, Tensor], facts: Json) -> None:
        for name, part in self.parts.items():
            start = f"{name}/"
            mine = {key[len(start) :]: tensor for key, tensor in tensors.items() if key.startswith(start)}
            part.restore(mine, facts[name])


@dataclass(frozen=True)
class Plain:
    """Some attributes of an object, all of them numbers."""

    owner: Any
    names: tuple[str, ...]

    def tensors(self) -> Mapping[str, Tensor]:
        return {}

    def facts(self) -> Json:
        return {name: getattr(self.owner, name) for name in self.names}

    def restore(self, tensors: Mapping[str, Tensor], facts: Json) -> None:
        for name in self.names:
            setattr(self.owner, name, facts[name])
