"""Pruned weights stay pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.bundle import Bundle
    from luodi.core.run import Run


def settled(asked: Literal["auto", "keep", "refill"], bundle: Bundle) -> Literal["keep", "refill"]:
    """What is to become of a bundle's zeros. A weight that came from elsewhere and happens to be 0 was not pruned: by
    itself a training keeps zeros only where a step before, or its update, made some on purpose."""
    if bundle.model is None:
        return "refill"
    if asked != "auto":
        return asked
    steps = [edit.step for edit in bundle.edits]
    return "keep" if any(one.thins or getattr(vars(one).get("update"), "thins", False) for one in steps) else "refill"


class Zeros:
    """The weights that are zero before a training and stay so: those of tensors that are partly, not wholly, zero.

    Only tensors of two axes or more count: a bias that happens to hold a zero is not pruned.
    """

    def __init__(self, model: nn.Module, wish: Literal["keep", "refill"], run: Run) -> None:
        self.weights: list[Tensor] = []
        self.masks: list[Tensor] = []
        for weight in model.parameters() if wish == "keep" else ():
            if weight.requires_grad and weight.dim() >= 2:
                mask = (weight.detach() != 0).to(weight.dtype)
                if bool((mask == 0).any()) and bool(mask.any()):
                    self.weights.append(weight)
                    self.masks.append(mask)
        if self.masks:
            count = sum(int((mask == 0).sum()) for mask in self.masks)
            run.log("note", {"text": f"{count:,} pruned weights stay zero (zeros: refill lets them grow again)"})

    def calm(self) -> None:
        """Takes their share out of the gradients, so that momentum and clipping do not see it."""
        import torch

        pairs = [
            (weight.grad, mask)
            for weight, mask in zip(self.weights, self.masks, strict=True)
            if weight.grad is not None
        ]
        if pairs:
            torch._foreach_mul_([grad for grad, _ in pairs], [mask for _, mask in pairs])

    def keep(self) -> None:
        """Sets them to zero again, whatever the update did."""
        import torch

        if self.weights:
            with torch.no_grad():
                torch._foreach_mul_(self.weights, self.masks)
