"""The ends of networks over texts: which inputs are texts, and means that leave padding out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from luodi.core.spec import Spec


def texts_of(inputs: Mapping[str, Spec], who: str) -> list[str]:
    """The names of the inputs that hold tokens, sorted; ValueError if there is none, or an input of another kind."""
    names = sorted(name for name, spec in inputs.items() if spec.kind == "tokens")
    others = sorted(name for name, spec in inputs.items() if spec.kind not in ("tokens", "mask"))
    if not names or others:
        found = ", ".join(f"{name} ({inputs[name].kind})" for name in others) or "none"
        raise ValueError(f"{who} takes texts alone, got {found}")
    return names


def language_of(inputs: Mapping[str, Spec], outputs: Mapping[str, Spec], who: str) -> tuple[str, int]:
    """The name of the tokens and how many there are; ValueError unless one language is read and written."""
    names = [name for name, spec in inputs.items() if spec.kind == "tokens"]
    others = [f"{name} ({spec.kind})" for name, spec in inputs.items() if name not in names]
    if len(names) != 1 or any(other != f"{names[0]}_mask (mask)" for other in others):
        raise ValueError(
            f"{who} takes one input of tokens (and its mask), got {', '.join([*names, *others]) or 'none'}"
        )
    (name,) = names
    size = inputs[name].size
    if list(outputs) != [name] or outputs[name].kind != "tokens" or outputs[name].shape[-1:] != (size,) or size < 1:
        told = ", ".join(f"{one} ({spec.kind} {spec.shape})" for one, spec in outputs.items())
        raise ValueError(f"{who} answers {name} as tokens ('length', {size}), got {told or 'none'}")
    return name, size


def mean_of(states: Tensor, mask: Tensor) -> Tensor:
    """(batch, length, width) and (batch, length) to (batch, width): the mean over what is no padding."""
    share = mask.to(states.dtype).unsqueeze(-1)
    return (states * share).sum(1) / share.sum(1).clamp(min=1.0)


def softmax_of(scores: Tensor, mask: Tensor) -> Tensor:
    """(batch, length) to shares of 1 over what is no padding."""
    return torch.softmax(scores.masked_fill(mask == 0, -1e9), dim=1)
