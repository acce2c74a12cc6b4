"""L1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator

from luodi.core.thing import Slot
from luodi.train.loop.movers import Mover, groups_of
from luodi.train.loop.slots import Update

if TYPE_CHECKING:
    from torch import Tensor, nn


class L1(Update):
    """Another update, and after each move every weight comes nearer to zero by the same amount, down to zero itself.

    w = sign(w) * max(|w| - rate * strength, 0): the proximal step of strength * sum(|w|) (arXiv 0912.3522, ISTA), which
    gives exact zeros where a penalty in the loss gives small numbers. Biases and normalisation layers are spared.
    """

    thins: ClassVar[bool] = True

    of: Annotated[Any, Slot("updates")] = Field("adamw", validate_default=True)  # how gradients move the weights
    strength: Annotated[float, Field(ge=0)] = 1e-4

    @field_validator("of")
    @classmethod
    def _trains_what_it_keeps(cls, of: Any) -> Any:
        if of.averages:
            raise ValueError(
                "an average of weights with zeros has none: l1 goes with an update that keeps what it trains"
            )
        return of

    def packages(self) -> Mapping[str, str]:
        return self.of.packages()

    def build(self, model: nn.Module) -> Mover:
        import torch

        inner = self.of.build(model)
        weights = [weight for group in groups_of(model, 1.0, ()) if group.decay for weight in group.parameters]

        def move(rate: float, damping: float = 1.0) -> None:
            inner.move(rate, damping)
            moved: list[Tensor] = [weight for weight in weights if weight.grad is not None]
            if moved:
                with torch.no_grad():
                    sizes = torch._foreach_abs(moved)
                    torch._foreach_sub_(sizes, rate * self.strength)
                    torch._foreach_clamp_min_(sizes, 0.0)
                    signs = torch._foreach_sign(moved)
                    torch._foreach_copy_(moved, torch._foreach_mul(signs, sizes))

        return Mover(move, inner.memory)
