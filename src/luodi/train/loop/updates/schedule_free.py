"""AdamW without a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from luodi.core.thing import Json
from luodi.train.loop.movers import Group, GroupMemory, Mover, groups_of
from luodi.train.loop.slots import Update

if TYPE_CHECKING:
    from torch import Tensor, nn

Share = Annotated[float, Field(gt=0, lt=1)]


class ScheduleFree(Update):
    """AdamW that averages its weights in place of a falling learning rate (arXiv 2405.15682).

    Gradients are taken at y = (1 - b1) * z + b1 * x, where z moves as AdamW without momentum does and x is the mean of
    all z, each by the square of the largest rate so far. x is validated and kept. Wants `schedule: {constant: {warmup:
    0.05}}` and a rate one to ten times Adam's.
    """

    averages: ClassVar[bool] = True

    betas: tuple[Share, Share] = (0.9, 0.999)  # y's share of x, and how much of the running square is kept
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.01  # of y; biases and normalisation layers have none

    def build(self, model: nn.Module) -> Mover:
        groups = groups_of(model, self.weight_decay, ("start", "square"))
        for group in groups:
            for start, parameter in zip(group.memory["start"], group.parameters, strict=True):
                start.copy_(parameter.detach())
        points = Points(groups, self.betas, self.epsilon)
        return Mover(points.move, points, points)


@dataclass
class Points:
    """The parameters are y; `start` is z; x follows from both."""

    groups: tuple[Group, ...]
    betas: tuple[float, float]
    epsilon: float
    largest: float = 0.0  # rate so far
    weight: float = 0.0  # summed
    done: int = 0

    def move(self, rate: float, damping: float = 1.0) -> None:
        """One update; it has no momentum, its first beta is y's place."""
        import torch

        self.done += 1
        self.largest = max(self.largest, rate)
        self.weight += self.largest**2
        new = self.largest**2 / self.weight if self.weight else 0.0
        with torch.no_grad():
            for group in self.groups:
                parameters, slopes, memory = group.moving()
                if parameters:
                    self._move(parameters, slopes, memory, group.decay, rate, new)

    def _move(
        self, y: list[Tensor], slopes: list[Tensor], memory: Mapping[str, list[Tensor]], decay: float, rate: float,
        new: float,
    ) -> None:  # fmt: skip
        import torch

        z, squares, (one, two) = memory["start"], memory["square"], self.betas
        torch._foreach_mul_(squares, two)
        torch._foreach_addcmul_(squares, slopes, slopes, 1 - two)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, sqrt(1 - two**self.done))
        torch._foreach_add_(roots, self.epsilon)
        moves = torch._foreach_div(slopes, roots)
        if decay:
            torch._foreach_add_(moves, y, alpha=decay)
        torch._foreach_lerp_(y, z, new)  # x moves towards the new z by `new`; y keeps its place between them
        torch._foreach_add_(y, moves, alpha=rate * (one * (1 - new) - 1))
        torch._foreach_sub_(z, moves, alpha=rate)

    @property
    def stale(self) -> bool:
        return True

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """x = y + (1 - 1/b1) * (z - y)."""
        import torch

        with torch.no_grad():
            return [
                (y, torch.lerp(y.detach(), z, 1 - 1 / self.betas[0]))
                for group in self.groups
                for y, z in zip(group.parameters, group.memory["start"], strict=True)
            ]

    def tensors(self) -> Mapping[str, Tensor]:
        return GroupMemory(self.groups).tensors()

    def facts(self) -> Json:
        return {"largest": self.largest, "weight": self.weight, "done": self.done}

    def restore(self, tensors: Mapping[str, Tensor], facts: Json) -> None:
        GroupMemory(self.groups).restore(tensors, facts)
        self.largest, self.weight, self.done = facts["largest"], facts["weight"], facts["done"]
