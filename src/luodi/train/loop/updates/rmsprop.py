"""RMSprop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.train.loop.movers import Mover, groups_of
from luodi.train.loop.slots import Update
from luodi.train.loop.torch_optimizer import grouped, of_optimizer

if TYPE_CHECKING:
    from torch import nn


class RMSprop(Update):
    """Each gradient over the running root mean square of its kind (Tieleman and Hinton 2012, lecture 6.5).

    s = keep * s + (1 - keep) * g**2; v = momentum * v + g / (sqrt(s) + epsilon); w -= rate * v. `centered` takes the
    variance in place of the mean square (arXiv 1308.0850). Weight decay is added to the gradient.
    """

    keep: Annotated[float, Field(ge=0, lt=1)] = 0.99  # how much of the running square is kept
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    centered: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # biases and normalisation layers have none

    def build(self, model: nn.Module) -> Mover:
        import torch

        groups = grouped(groups_of(model, self.weight_decay, ()))
        return of_optimizer(
            torch.optim.RMSprop(
                groups, alpha=self.keep, momentum=self.momentum, eps=self.epsilon, centered=self.centered, foreach=True
            )
        )
