"""Losses to gradients: summed losses are divided by summed weights over all micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from luodi.train.loop.slots import Losses

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.train.loop.examples import Pair
    from luodi.train.loop.precision import Arithmetic
    from luodi.train.loop.slots import Objective

SMALLEST = 1e-12  # a batch whose weights are all 0 has a loss of 0, not of 0 / 0


def mean_loss(losses: Losses) -> Tensor:
    """The loss of one batch: the sum over names of share * (summed losses / summed weights)."""
    total: Tensor | None = None
    for each, weights, share in losses.values():
        part = each.sum() / weights.sum().clamp(min=SMALLEST)
        part = part if share == 1 else part * share
        total = part if total is None else total + part
    assert total is not None, "an objective must give at least one loss"
    return total


def backward(
    objective: Objective, model: nn.Module, parameters: Sequence[nn.Parameter], batches: Sequence[Pair], world: int,
    arithmetic: Arithmetic,
) -> Tensor:  # fmt: skip
    """Sets the gradients of these parameters of the model for one update, times the loss scale; returns the loss,
    detached."""
    for parameter in parameters:
        parameter.grad = None
    if len(batches) == 1 and world == 1:
        with arithmetic.forward():
            loss = mean_loss(objective(model, *batches[0]))
        arithmetic.up(loss).backward()
        return loss.detach()
    return _accumulated(objective, model, parameters, batches, world, arithmetic)


def _accumulated(
    objective: Objective, model: nn.Module, parameters: Sequence[nn.Parameter], batches: Sequence[Pair], world: int,
    arithmetic: Arithmetic,
) -> Tensor:  # fmt: skip
    """Exact for several names with different weights: each name's gradients are summed before they are divided."""
    import torch

    summed: dict[str, list[Tensor]] = {}  # name -> [summed losses, summed weights, gradient of each parameter...]
    shares: dict[str, float] = {}
    for inputs, truth in batches:
        with arithmetic.forward():
            losses = objective(model, inputs, truth)
        for place, (name, (each, weights, share)) in enumerate(losses.items()):
            total, more = each.sum(), place + 1 < len(losses)
            found = torch.autograd.grad(
                arithmetic.up(total), parameters, retain_graph=more, allow_unused=True, materialize_grads=True
            )
            new = [total.detach(), weights.sum().detach(), *found]
            old = summed.get(name)
            summed[name] = new if old is None else [a + b for a, b in zip(old, new, strict=True)]
            shares[name] = share
    if world > 1:
        for tensors in summed.values():
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)
    scales = {name: shares[name] / tensors[1].clamp(min=SMALLEST) for name, tensors in summed.items()}
    for at, parameter in enumerate(parameters):
        parameter.grad = sum_of([tensors[at + 2] * scales[name] for name, tensors in summed.items()])
    return sum_of([tensors[0] * scales[name] for name, tensors in summed.items()])


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """The sum, in order."""
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total
