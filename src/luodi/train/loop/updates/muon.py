"""Muon."""

from __future__ import annotations

from functools import partial
from math import sqrt
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.train.loop.moments import moments_mover
from luodi.train.loop.movers import Group, GroupMemory, Mover, groups_of, together
from luodi.train.loop.slots import Update

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Share = Annotated[float, Field(ge=0, lt=1)]
A, B, C = 3.4445, -4.775, 2.0315  # Keller Jordan's: singular values go to about 1 in five rounds, not exactly to 1
SIZE = 0.2  # root mean square of AdamW's moves over its rate, as arXiv 2502.16982 measured it


class Muon(Update):
    """Moves a hidden matrix along its orthogonalised momentum, the rest by AdamW (arXiv 2502.16982).

    Hidden matrices are the weights of linear layers outside the heads; convolutions, tables, heads, biases and norms
    are the rest. A matrix's step is scaled to the size of AdamW's, so that one rate and one weight decay fit both.
    """

    momentum: Share = 0.95  # Nesterov's
    rounds: Annotated[int, Field(ge=1, lt=100)] = 5  # of Newton and Schulz: fp32 on a CPU, bf16 elsewhere
    betas: tuple[Share, Share] = (0.9, 0.999)  # of AdamW
    epsilon: Annotated[float, Field(gt=0)] = 1e-8  # of AdamW
    weight_decay: Annotated[float, Field(ge=0)] = 0.01  # biases and normalisation layers have none

    def build(self, model: nn.Module) -> Mover:
        import torch

        hidden = hidden_matrices(model)
        rest = groups_of(model, self.weight_decay, ("mean", "square"), without=hidden)
        adamw = moments_mover(torch._fused_adamw_, rest, self.betas, self.epsilon)
        if not hidden:
            return adamw
        group = Group(hidden, self.weight_decay, {"mean": [torch.zeros_like(weight) for weight in hidden]})
        muon = Mover(partial(self._move, group), GroupMemory((group,)))
        return together({"muon": muon, "adamw": adamw})

    def _move(self, group: Group, rate: float, damping: float = 1.0) -> None:
        import torch

        with torch.no_grad():
            parameters, slopes, memory = group.moving()
            if not parameters:
                return
            kept = self.momentum * damping
            torch._foreach_lerp_(memory["mean"], slopes, 1 - kept)
            ahead = torch._foreach_lerp(slopes, memory["mean"], kept)
            torch._foreach_mul_(parameters, 1 - rate * group.decay)
            for weight, slope in zip(parameters, ahead, strict=True):
                way = orthogonal(slope, self.rounds, arithmetic(weight))
                weight.add_(way, alpha=-rate * SIZE * sqrt(max(weight.shape)))


def arithmetic(weight: Tensor) -> torch.dtype:
    """What the rounds are computed in: bf16 needs units that most CPUs lack, where torch's own Muon, which has nothing
    else, took nearly 40 times as long."""
    import torch

    return weight.dtype if weight.device.type == "cpu" else torch.bfloat16


def orthogonal(matrix: Tensor, rounds: int, kind: torch.dtype) -> Tensor:
    """About U V^T of the matrix U S V^T, (rows, columns), by Newton and Schulz."""
    import torch

    found = matrix.to(kind)
    if matrix.shape[0] > matrix.shape[1]:
        found = found.T
    found = found / found.norm().clamp(min=1e-7)
    for _ in range(rounds):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=B, alpha=C), found, beta=A)
    return found.T if matrix.shape[0] > matrix.shape[1] else found


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The trained weights of linear layers, those of the model's part `heads` left out."""
    from torch import nn

    shared = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "heads" not in name.split(".")
        and module.weight.requires_grad and id(module.weight) not in shared
    ]  # fmt: skip
