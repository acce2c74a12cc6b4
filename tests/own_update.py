"""An update of a third party, over an optimizer of torch with tensors and numbers in its state."""

from __future__ import annotations

from luodi.train.loop.movers import Mover
from luodi.train.loop.slots import Update
from luodi.train.loop.torch_optimizer import of_optimizer


class OwnUpdate(Update):
    """RMSprop with momentum, averaged weights' worth of state."""

    alpha: float = 0.9

    def build(self, model) -> Mover:
        import torch

        return of_optimizer(torch.optim.RMSprop(model.parameters(), alpha=self.alpha, momentum=0.5, centered=True))


class Uphill(Update):
    """Moves along the gradient, not against it."""

    def build(self, model) -> Mover:
        import torch

        return of_optimizer(torch.optim.SGD(model.parameters(), maximize=True))
