"""Between torch modules and plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from luodi.core.errors import LuodiError
from luodi.core.thing import Json
from luodi.train.loop.by_hand.network import Layer, Momentum

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from luodi.core.spec import Arrays


def layers_of(model: nn.Module) -> list[Layer]:
    """The model's linear layers as arrays on the same memory: what is written into them is in the model.

    Raises LuodiError if the model is not linear layers one after another.
    """
    from torch import nn

    owners = [module for module in model.modules() if any(True for _ in module.parameters(recurse=False))]
    linear = [module for module in owners if type(module) is nn.Linear and module.bias is not None]
    chained = all(a.out_features == b.in_features for a, b in pairwise(linear))
    if len(linear) != len(owners) or not linear or not chained:
        odd = sorted({type(module).__name__ for module in owners if module not in linear}) or ["side branches"]
        raise LuodiError(f"by_hand writes out linear layers one after another; this model holds {', '.join(odd)}")
    return [Layer(module.weight.detach().numpy(), module.bias.detach().numpy()) for module in linear]


def flat(arrays: Arrays) -> np.ndarray:
    """Named inputs side by side, sorted by name, as the `mlp` takes them: (rows, numbers)."""
    import numpy as np

    return np.concatenate([arrays[name].reshape(len(arrays[name]), -1) for name in sorted(arrays)], axis=1)


@dataclass(frozen=True)
class MomentumMemory:
    """The velocities of a by-hand training, for its checkpoint."""

    update: Momentum

    def tensors(self) -> Mapping[str, Tensor]:
        import torch

        return {name: torch.from_numpy(array) for name, array in _named(self.update.velocities).items()}

    def facts(self) -> Json:
        return {}

    def restore(self, tensors: Mapping[str, Tensor], facts: Json) -> None:
        for name, array in _named(self.update.velocities).items():
            array[...] = tensors[name].numpy()


def _named(layers: Sequence[Layer]) -> dict[str, np.ndarray]:
    weights = {f"{place}/weight": layer.weight for place, layer in enumerate(layers)}
    return weights | {f"{place}/bias": layer.bias for place, layer in enumerate(layers)}
