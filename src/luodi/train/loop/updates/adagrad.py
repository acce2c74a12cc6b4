"""AdaGrad."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.train.loop.movers import Group, GroupMemory, Mover, counters, groups_of
from luodi.train.loop.slots import Update

if TYPE_CHECKING:
    from torch import nn


class Adagrad(Update):
    """Each gradient over the root of the sum of all its squares so far (Duchi, Hazan, Singer 2011).

    s += g**2; w -= rate * g / (sqrt(s) + epsilon). Its steps shrink by themselves: wants a rate ten times Adam's.
    Weight decay is added to the gradient.
    """

    epsilon: Annotated[float, Field(gt=0)] = 1e-10
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # biases and normalisation layers have none

    def build(self, model: nn.Module) -> Mover:
        import torch

        bare = groups_of(model, self.weight_decay, ("squares",))
        groups = tuple(Group(g.parameters, g.decay, {**g.memory, "step": counters(g)}) for g in bare)

        def move(rate: float, damping: float = 1.0) -> None:
            with torch.no_grad():
                for group in groups:
                    parameters, slopes, memory = group.moving()
                    if parameters:
                        torch._foreach_add_(memory["step"], 1)
                        torch._fused_adagrad_(
                            parameters, slopes, memory["squares"], memory["step"], lr=rate, lr_decay=0.0,
                            weight_decay=group.decay, eps=self.epsilon, maximize=False,
                        )  # fmt: skip

        return Mover(move, GroupMemory(groups))
