"""Lion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.train.loop.movers import GroupMemory, Mover, groups_of
from luodi.train.loop.slots import Update

if TYPE_CHECKING:
    from torch import nn

Share = Annotated[float, Field(ge=0, lt=1)]


class Lion(Update):
    """Every weight moves by the same amount, in the direction of a running mean's sign (arXiv 2302.06675).

    w -= rate * (sign(b1 * m + (1 - b1) * g) + weight_decay * w); m = b2 * m + (1 - b2) * g. Half of Adam's memory;
    wants a rate three to ten times lower than Adam's, and a weight decay as many times higher.
    """

    betas: tuple[Share, Share] = (0.9, 0.99)  # how much of the mean counts in a move, and is kept after it
    weight_decay: Annotated[float, Field(ge=0)] = 0.05  # biases and normalisation layers have none

    def build(self, model: nn.Module) -> Mover:
        import torch

        groups = groups_of(model, self.weight_decay, ("mean",))

        def move(rate: float, damping: float = 1.0) -> None:
            with torch.no_grad():
                for group in groups:
                    parameters, slopes, memory = group.moving()
                    if not parameters:
                        continue
                    ways = torch._foreach_lerp(memory["mean"], slopes, 1 - self.betas[0] * damping)
                    torch._foreach_sign_(ways)
                    if group.decay:
                        torch._foreach_mul_(parameters, 1 - rate * group.decay)
                    torch._foreach_add_(parameters, ways, alpha=-rate)
                    torch._foreach_lerp_(memory["mean"], slopes, 1 - self.betas[1])

        return Mover(move, GroupMemory(groups))
