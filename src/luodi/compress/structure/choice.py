"""Which channels go: the least of each kind, or of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from luodi.compress.structure.follow import Place, Structure

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.compress.calibration.walk import Calibration

Kinds = Mapping[frozenset[Place], list[int]]

Scores = Mapping[int, float]  # component -> what it is worth


def by_magnitude(model: nn.Module, structure: Structure) -> Scores:
    """The root of the sum of squared weights of a component, over the mean of its kind."""
    squares = {name: tensor.detach().square() for name, tensor in model.named_parameters()}
    roots = {one: value**0.5 for one, value in _summed(structure, squares).items()}
    found: dict[int, float] = {}
    for several in structure.groups.values():
        mean = sum(roots.get(one, 0.0) for one in several) / len(several)
        found |= {one: roots.get(one, 0.0) / (mean or 1.0) for one in several}
    return found


def by_taylor(model: nn.Module, structure: Structure, calibration: Calibration) -> Scores:
    """The sum of |weight x gradient| of a component's weights, over all batches (Molchanov et al. 2019, arXiv
    1906.10771): by how much, to first order, the loss would change without each of them."""
    import torch

    from luodi.train.loop.gradients import mean_loss

    model.eval()
    weights = {name: one for name, one in model.named_parameters() if one.requires_grad}
    found = {name: torch.zeros_like(one) for name, one in weights.items()}
    for pair in calibration.batches():
        loss = mean_loss(calibration.task.loss(model, *pair))
        slopes = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for (name, one), slope in zip(weights.items(), slopes, strict=True):
            if slope is not None:
                found[name] += (one.detach() * slope).abs()
    return _summed(structure, found)


def _summed(structure: Structure, values: Mapping[str, Tensor]) -> dict[int, float]:
    """Sums of these numbers over every axis on which a component lies."""
    found: dict[int, float] = {}
    for name, tensor in values.items():
        for axis, places in enumerate(structure.tensors.get(name, ())):
            sums = tensor.double().movedim(axis, 0).reshape(len(places), -1).sum(1)
            for one, value in zip(places.tolist(), sums.tolist(), strict=True):
                found[one] = found.get(one, 0.0) + value
    return found


def least(
    model: nn.Module, kinds: Kinds, scores: Scores, whole: Mapping[frozenset[Place], int], share: float, multiple: int,
    scope: Literal["layer", "global"],
) -> set[int]:  # fmt: skip
    """The components that go so that `share` of the `whole` is gone, of each kind or of all together.

    One of each kind stays at least, and what stays is rounded up to a multiple, but for kinds below four times that.
    """
    order = {axes: sorted(several, key=lambda one: scores.get(one, 0.0)) for axes, several in kinds.items()}
    counts = {axes: whole.get(axes, len(several)) for axes, several in kinds.items()}
    if scope == "layer":
        kept = {axes: count - int(share * count + 1e-9) for axes, count in counts.items()}
    else:
        first = sorted((scores.get(one, 0.0), one) for several in kinds.values() for one in several)
        already = sum(counts.values()) - len(first)
        gone = {one for _, one in first[: max(int(share * sum(counts.values()) + 1e-9) - already, 0)]}
        kept = {axes: sum(one not in gone for one in several) for axes, several in kinds.items()}
    found: set[int] = set()
    for axes, several in order.items():
        unit = multiple if counts[axes] >= 4 * multiple else 1
        stay = max(-(-kept[axes] // unit) * unit, _fewest(model, axes))
        found |= set(several[: max(len(several) - stay, 0)])
    return found


def _fewest(model: nn.Module, axes: frozenset[Place]) -> int:
    """1, or what a strided convolution of 1 x 1 must have: its gradient on a processor is wrong below."""
    from torch import nn

    from luodi.models.layers.residual import NARROWEST

    layers = [model.get_submodule(name.rpartition(".")[0]) for name, axis in axes]
    strided = [
        one for one in layers if isinstance(one, nn.Conv2d) and one.kernel_size == (1, 1) and max(one.stride) > 1
    ]
    return NARROWEST if strided else 1


def loss_of(model: nn.Module, calibration: Calibration) -> float:
    """The mean of the batches' losses."""
    import torch

    from luodi.train.loop.gradients import mean_loss

    model.eval()
    with torch.no_grad():
        losses = [float(mean_loss(calibration.task.loss(model, *pair))) for pair in calibration.batches()]
    return sum(losses) / len(losses)
