"""Examples blended with others of their batch: one forward, and the losses of all truths in their shares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from luodi.train.loop.slots import Batch, Blend, Losses, Objective

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


@dataclass(frozen=True)
class Blended(Mapping[str, "Tensor"]):
    """The truth of blended examples: as a mapping their own, `share` (batch,) of it, and the rest their partners'."""

    own: Batch
    partner: Batch
    share: Tensor

    def __getitem__(self, name: str) -> Tensor:
        return self.own[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.own)

    def __len__(self) -> int:
        return len(self.own)


def blended(blend: Blend, values: Tensor, truth: Batch, generator: Generator) -> tuple[Tensor, Batch]:
    """Each value blended with one of another place of a random order, and the truth of both."""
    import torch

    order = torch.randperm(len(values), generator=generator).to(values.device)
    values, share = blend.blend(values, values.index_select(0, order), generator)
    return values, Blended(truth, _taken(truth, order), share)


def losses_of(objective: Objective, model: nn.Module, batch: Batch, truth: Batch) -> Losses:
    """What the objective gives; for blended truth, each example's losses and weights in the shares of its truths.

    That is exact for every objective whose losses are functions of outputs and truth; the model is called once.
    """
    if not isinstance(truth, Blended):
        return objective(model, batch, truth)
    from luodi.models.layers.one_forward import OneForward

    once = model if isinstance(model, OneForward) else OneForward(model)
    own, partner = losses_of(objective, once, batch, truth.own), losses_of(objective, once, batch, truth.partner)
    found: dict[str, tuple[Tensor, Tensor, float]] = {}
    for name, (losses, weights, share) in own.items():
        theirs, others, _ = partner[name]
        kept = truth.share.to(losses.dtype)
        found[name] = (kept * losses + (1 - kept) * theirs, kept * weights + (1 - kept) * others, share)
    return found


def _taken(truth: Batch, order: Tensor) -> Batch:
    if isinstance(truth, Blended):
        return Blended(_taken(truth.own, order), _taken(truth.partner, order), truth.share.index_select(0, order))
    return {name: tensor.index_select(0, order) for name, tensor in truth.items()}
