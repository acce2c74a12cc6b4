"""A file with a state dict, read without running code, and put into a module only if it fits."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luodi.core.errors import LuodiError
from luodi.data.pretraining.mismatch import told_mismatch

if TYPE_CHECKING:
    from torch import Tensor, nn

PICKLED = (".pt", ".pth", ".bin", ".ckpt")  # opened by torch's reader that makes nothing but tensors and plain values
INSIDE = ("state_dict", "model_state_dict", "model", "weights")  # where checkpoints keep the state dict
PREFIXES = ("module.", "_orig_mod.")  # what parallel and compiled modules put before every name


def read(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """(name -> tensor, notes on what was taken off); raises LuodiError if the file holds anything else."""
    if not path.is_file():
        raise LuodiError(f"no file {path}")
    held, notes = _held(path), []
    for key in INSIDE:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held, notes = held[key], [f"the state dict was under {key!r} in {path.name}"]
            break
    tensors = _tensors(held, path)
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
            notes.append(f"{prefix!r} was taken off the names of the tensors")
    kinds = sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values() if t.is_floating_point()})
    if kinds not in ([], ["float32"]):
        notes.append(f"weights stored as {', '.join(kinds)} are float32 here")
    return tensors, notes


def _held(path: Path) -> Any:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix in PICKLED:
            return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        why = str(error).split("\n", 1)[0]
        raise LuodiError(
            f"{path} cannot be read as plain tensors ({why}); a file of torch must hold a state dict alone: "
            "torch.save(model.state_dict(), PATH)"
        ) from error
    raise LuodiError(f"{path}: weights are a .safetensors file, or a state dict in {', '.join(PICKLED)}")


def _tensors(held: Any, path: Path) -> dict[str, Tensor]:
    import torch

    if not isinstance(held, Mapping):
        raise LuodiError(f"{path} holds a {type(held).__name__}, not a state dict (name -> tensor)")
    others = [str(key) for key, value in held.items() if not isinstance(value, torch.Tensor)]
    if others or not held:
        raise LuodiError(f"{path} holds no state dict: not a tensor under {', '.join(others[:8]) or 'any name'}")
    return dict(held)


def fill(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Gives a module these tensors; raises LuodiError with every name and shape that does not fit."""
    want = network.state_dict()
    extra = sorted(tensors.keys() - want.keys())
    shapes = {
        name: (tuple(tensors[name].shape), tuple(tensor.shape))
        for name, tensor in want.items()
        if name in tensors and tensors[name].shape != tensor.shape
    }
    wrong = told_mismatch(sorted(want.keys() - tensors.keys()), extra, shapes)
    if extra:
        wrong += f"\n  {path.name} has {', '.join(extra[:8])}, which the model does not"
    if wrong:
        raise LuodiError(f"{path} holds other weights than {type(network).__name__} has:\n{wrong.strip(chr(10))}")
    network.load_state_dict(dict(tensors))
