"""Stochastic gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from luodi.train.loop.groups import decay_groups, fused
from luodi.train.loop.slots import Update

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


class SGD(Update):
    """Stochastic gradient descent with momentum; weight decay spares biases and normalisation layers.

    g: gradient + weight_decay * w; v = momentum * v + g; w -= rate * v, or nesterov: rate * (g + momentum * v).
    """

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    variant: Literal["plain", "nesterov"] = "plain"  # nesterov looks one step ahead; it needs momentum > 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0

    def build(self, model: nn.Module, learning_rate: float) -> Optimizer:
        from torch import optim

        return optim.SGD(
            decay_groups(model, self.weight_decay), lr=learning_rate, momentum=self.momentum,
            nesterov=self.variant == "nesterov", fused=fused(model),
        )  # fmt: skip
