"""Adafactor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.train.loop.movers import Mover, groups_of
from luodi.train.loop.slots import Update
from luodi.train.loop.torch_optimizer import grouped, of_optimizer

if TYPE_CHECKING:
    from torch import nn


class Adafactor(Update):
    """As Adam without its memory: a matrix remembers one number for each row and column (arXiv 1804.04235).

    A tensor's move is bounded by rate * max(smallest, its root mean square), so that the rate is relative: 0.01 moves
    weights by about a hundredth. No running mean. Weight decay is decoupled.
    """

    forget: Annotated[float, Field(lt=0)] = -0.8  # update n keeps 1 - n**forget of the running square
    smallest: Annotated[float, Field(gt=0)] = 1e-3  # root mean square that small tensors are taken to have
    clip: Annotated[float, Field(ge=1)] = 1.0  # largest root mean square of a tensor's move over its rate
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # biases and normalisation layers have none

    def build(self, model: nn.Module) -> Mover:
        import torch

        groups = grouped(groups_of(model, self.weight_decay, ()))
        return of_optimizer(
            torch.optim.Adafactor(groups, beta2_decay=self.forget, eps=(None, self.smallest), d=self.clip)
        )
