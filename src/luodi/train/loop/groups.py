"""Which parameters an update shrinks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: weights, which decay, and biases and the scales of normalisation layers, which do not.

    A bias or scale is what has fewer than two axes, or what belongs to a normalisation layer.
    """
    from torch import nn

    norms = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase, nn.LocalResponseNorm)
    plain = {id(p) for m in model.modules() if isinstance(m, norms) for p in m.parameters(recurse=False)}
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = [p for p in trained if p.dim() >= 2 and id(p) not in plain]
    chosen = {id(p) for p in weights}
    others = [p for p in trained if id(p) not in chosen]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def fused(model: nn.Module) -> bool:
    """Whether torch has one kernel for the whole update of these parameters: floats on a CPU, GPU or Apple chip."""
    kinds = {p.device.type for p in model.parameters()}
    return kinds <= {"cpu", "cuda", "mps", "xpu"} and all(p.is_floating_point() for p in model.parameters())
