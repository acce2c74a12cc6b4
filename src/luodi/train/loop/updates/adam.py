"""Adam."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.train.loop.moments import moments_mover
from luodi.train.loop.movers import Mover, groups_of
from luodi.train.loop.slots import Update

if TYPE_CHECKING:
    from torch import nn

Share = Annotated[float, Field(ge=0, lt=1)]


class Adam(Update):
    """Adam: each weight moves by its gradient's running mean over its running root mean square (arXiv 1412.6980).

    Weight decay is added to the gradient, as an L2 penalty is; biases and normalisation layers have none.
    """

    betas: tuple[Share, Share] = (0.9, 0.999)  # how much of the running mean, and of the running square, is kept
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0

    def build(self, model: nn.Module) -> Mover:
        import torch

        groups = groups_of(model, self.weight_decay, ("mean", "square"))
        return moments_mover(torch._fused_adam_, groups, self.betas, self.epsilon)
