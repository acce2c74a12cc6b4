"""A multilayer perceptron."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.ends import Gather, Heads


class MLP(nn.Module):
    """A multilayer perceptron over all inputs side by side, with one linear head for each target.

    `hidden` are the layers' widths, `dropout` a share 0..1 after each of them.
    """

    def __init__(
        self,
        inputs: dict[str, Spec],
        outputs: dict[str, Spec],
        *,
        hidden: tuple[int, ...] = (128,),
        dropout: float = 0.0,
        activation: Literal["relu", "gelu", "tanh"] = "relu",
    ) -> None:
        super().__init__()
        if any(width < 1 for width in hidden) or not 0 <= dropout < 1:
            raise ValueError(f"mlp: hidden widths are at least 1 and dropout is in [0, 1), got {hidden} and {dropout}")
        self.inputs = Gather(inputs)
        kind = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}[activation]
        layers: list[nn.Module] = []
        for before, after in pairwise((self.inputs.width, *hidden)):
            layers += [nn.Linear(before, after), kind()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        self.layers = nn.Sequential(*layers)
        self.heads = Heads(hidden[-1] if hidden else self.inputs.width, outputs)

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        return self.heads(self.layers(self.inputs(batch)))
