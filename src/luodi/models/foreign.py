"""A PyTorch module made elsewhere."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.whole_state import whole_state


class Foreign(nn.Module):
    """A PyTorch module of your own, named by its import path, with positional tensors in and tensors out.

    `network` (package.module:Class or ./file.py:Class) is called with `arguments`; its forward is given the inputs
    `takes`, in that order. `gives` says where each target is in what it returns: the place in a tuple (0 for a single
    tensor), or the key of a mapping. Its tensors are named as in the original, behind `network.`.
    """

    def __init__(
        self,
        inputs: dict[str, Spec],
        outputs: dict[str, Spec],
        *,
        network: type,
        arguments: dict,
        takes: tuple[str, ...],
        gives: dict[str, int | str],
    ) -> None:
        super().__init__()
        if sorted(takes) != sorted(inputs) or sorted(gives) != sorted(outputs):
            raise ValueError(
                f"foreign: `takes` holds each of {sorted(inputs)} and `gives` each of {sorted(outputs)}, "
                f"got {sorted(takes)} and {sorted(gives)}"
            )
        self.takes, self.gives = tuple(takes), dict(gives)
        self.widths = {name: len(outputs[name].shape) for name in gives}
        self.network = whole_state(network(**arguments))

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        returned = self.network(*(batch[name] for name in self.takes))
        return {name: self._shaped(name, self.picked(returned, place)) for name, place in self.gives.items()}

    def _shaped(self, name: str, tensor: Tensor) -> Tensor:
        """A number a row may come without its own axis."""
        return tensor.unsqueeze(-1) if tensor.dim() == self.widths[name] else tensor

    @staticmethod
    def picked(returned: Any, place: int | str) -> Tensor:
        """One tensor of what a module returned: a tensor alone, or the one at a place or under a key."""
        return returned if isinstance(returned, Tensor) else returned[place]
