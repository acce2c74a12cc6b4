"""Tensors of a model as plain named tensors, and back into a fresh model: no pickle, no wrapper is stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luodi.core.errors import Damaged

if TYPE_CHECKING:
    from torch import Tensor, nn


def unpack(name: str, tensor: Any, out: dict[str, Tensor]) -> None:
    """A tensor subclass is its plain inner tensors, named `name::inner`."""
    if hasattr(tensor, "__tensor_flatten__"):
        for inner in tensor.__tensor_flatten__()[0]:
            unpack(f"{name}::{inner}", getattr(tensor, inner), out)
    else:
        out[name] = tensor.detach()


def plain_tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(name -> tensor, alias -> name): every stored tensor once; tied ones are aliases of the first."""
    out: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in first:
            aliases[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            unpack(name, tensor, out)
    hidden = {name for name, _ in model.named_buffers()} - set(model.state_dict())
    assert not hidden, f"buffers that are not saved would come back empty: {sorted(hidden)}; register them persistent"
    return out, aliases


def save_weights(model: nn.Module, path: Path) -> dict[str, str]:
    """Writes one safetensors file; returns the aliases of tied tensors."""
    from safetensors.torch import save_file

    tensors, aliases = plain_tensors(model)
    save_file({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}, path)
    return aliases


def fill(model: nn.Module, tensors: Mapping[str, Tensor], aliases: Mapping[str, str], path: Path) -> nn.Module:
    """Copies stored tensors into a model of the same names, shapes and dtypes; raises Damaged on any difference."""
    import torch

    want, tied = plain_tensors(model)
    if dict(aliases) != tied or want.keys() != tensors.keys():
        odd = sorted(want.keys() ^ tensors.keys()) or sorted(set(aliases.items()) ^ set(tied.items()))
        raise Damaged(
            f"{path}: the model that the edits rebuild has other tensors than the file: {odd[:4]}; "
            "it was made by another version of a step or package (see edits in bundle.json)"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            if want[name].shape != tensor.shape or want[name].dtype != tensor.dtype:
                raise Damaged(
                    f"{path}: {name} is {tuple(tensor.shape)} {tensor.dtype}, "
                    f"the rebuilt model wants {tuple(want[name].shape)} {want[name].dtype}"
                )
            want[name].copy_(tensor)
    return model


def materialize(model: nn.Module, device: str) -> nn.Module:
    """A model on the meta device given memory, whatever is in it; tied tensors stay tied.

    Plain `torch.empty` for each tensor: `Module.to_empty` unties them, and imports a symbolic algebra system.
    """
    import torch

    made: dict[int, Any] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and id(tensor) not in made:
                    if hasattr(tensor, "__tensor_flatten__"):
                        fresh = torch.empty_like(tensor, device=device)
                    else:
                        fresh = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                    is_parameter = isinstance(tensor, torch.nn.Parameter)
                    made[id(tensor)] = (
                        tensor,
                        torch.nn.Parameter(fresh, tensor.requires_grad) if is_parameter else fresh,
                    )
                if tensor is not None:
                    held[name] = made[id(tensor)][1]
    return model


def touched(before: Path, after: Path) -> float:
    """Share of the numbers of `before` that are not bit for bit the same, under the same name, in `after`."""
    import torch
    from safetensors import safe_open

    changed = total = 0
    with safe_open(before, "pt") as old, safe_open(after, "pt") as new:
        kept = set(new.keys())
        for name in old.keys():  # noqa: SIM118 - safe_open is no mapping
            one = old.get_tensor(name)
            total += one.numel()
            other = new.get_tensor(name) if name in kept else None
            if other is None or other.shape != one.shape or other.dtype != one.dtype:
                changed += one.numel()
            else:
                changed += int((one.view(torch.uint8) != other.view(torch.uint8)).reshape(one.numel() or 1, -1)
                               .any(-1).sum()) if one.dim() else int(not torch.equal(one, other))  # fmt: skip
    return changed / max(total, 1)
