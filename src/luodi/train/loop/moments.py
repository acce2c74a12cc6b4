"""Running means and squares of gradients: what Adam and its relatives share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from luodi.train.loop.movers import Group, GroupMemory, Mover, counters


def moments_mover(
    kernel: Callable[..., Any], groups: tuple[Group, ...], betas: tuple[float, float], epsilon: float
) -> Mover:
    """Moves by one of torch's fused kernels, which reads every number once.

    Each group's memory holds `mean` and `square`; the updates done are counted per parameter, as the kernel wants it.
    """
    import torch

    counted = tuple(Group(g.parameters, g.decay, {**g.memory, "step": counters(g)}) for g in groups)

    def move(rate: float, damping: float = 1.0) -> None:
        with torch.no_grad():
            for group in counted:
                parameters, slopes, memory = group.moving()
                if parameters:
                    torch._foreach_add_(memory["step"], 1)
                    kernel(
                        parameters, slopes, memory["mean"], memory["square"], [], memory["step"], lr=rate,
                        beta1=betas[0] * damping, beta2=betas[1], weight_decay=group.decay, eps=epsilon, amsgrad=False,
                        maximize=False,
                    )  # fmt: skip

    return Mover(move, GroupMemory(counted))
