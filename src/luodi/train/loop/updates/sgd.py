"""Stochastic gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from luodi.train.loop.movers import GroupMemory, Mover, groups_of
from luodi.train.loop.slots import Update

if TYPE_CHECKING:
    from torch import Tensor, nn


class SGD(Update):
    """Stochastic gradient descent with momentum; weight decay spares biases and normalisation layers.

    g: gradient + weight_decay * w; v = momentum * v + g; w -= rate * v, or nesterov: rate * (g + momentum * v).
    """

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    variant: Literal["plain", "nesterov"] = "plain"  # nesterov looks one step ahead; it needs momentum > 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0

    def build(self, model: nn.Module) -> Mover:
        import torch

        groups = groups_of(model, self.weight_decay, ("velocity",) if self.momentum else ())

        def move(rate: float, damping: float = 1.0) -> None:
            momentum = self.momentum * damping
            with torch.no_grad():
                for group in groups:
                    parameters, slopes, memory = group.moving()
                    if group.decay and parameters:
                        slopes = torch._foreach_add(slopes, parameters, alpha=group.decay)
                    if self.momentum and parameters:
                        torch._foreach_mul_(memory["velocity"], momentum)
                        torch._foreach_add_(memory["velocity"], slopes)
                        slopes = self._ahead(list(slopes), memory["velocity"], momentum)
                    if parameters:
                        torch._foreach_add_(parameters, slopes, alpha=-rate)

        return Mover(move, GroupMemory(groups))

    def _ahead(self, slopes: list[Tensor], velocities: list[Tensor], momentum: float) -> list[Tensor]:
        import torch

        if self.variant == "plain":
            return velocities
        return list(torch._foreach_add(slopes, velocities, alpha=momentum))
