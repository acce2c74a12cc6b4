"""A bundle of a model made elsewhere is saved only after what was saved answers as the original does."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luodi.core import parity
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError, ParityError
from luodi.core.form import TOLERANCE
from luodi.core.spec import Arrays

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.task import Forward, Request

ARRAYS = 1e-5  # largest difference of arrays over the largest array value: one gray level is 4e-3 of it
ROWS = 8  # requests that are compared at once where each gives a row of logits a token
MORE = 16  # requests besides the golden ones, made from another seed


@dataclass(frozen=True)
class Original:
    """The model as it was: what it makes of requests, and what it answers to those arrays."""

    arrays: Callable[[Sequence[Request]], Arrays] | None  # None: it has no preprocessing of its own
    forward: Forward


def prove_and_save(
    bundle: Bundle, original: Original, out: Path, about: Mapping[str, Any], trust: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Saves the bundle, opens it again and compares that with the original, then saves it at `out`.

    Raises ParityError where arrays or outputs differ by more than rounding. Returns the report of the import.
    """
    model = bundle.model
    assert model is not None
    requests = [*bundle.task.examples(parity.COUNT, seed=0), *bundle.task.examples(MORE, seed=1)]
    arrays = bundle.task.encode([bundle.task.read(bundle.task.write(request)) for request in requests])
    theirs = original.arrays(requests) if original.arrays is not None else arrays
    difference = _same_arrays(arrays, theirs)
    original.forward({name: array[:2] for name, array in theirs.items()})  # what it refuses, it says in its own words
    bundle = parity.record(bundle)
    with tempfile.TemporaryDirectory(prefix="luodi-import-") as folder:
        opened = _opened(bundle.save(Path(folder) / "bundle"), trust)
        large = any(spec.kind == "tokens" for spec in bundle.task.outputs_specs().values())
        at_once = ROWS if large else len(requests)
        found = _drift(opened.predictor("torch").forward, arrays, original.forward, theirs, at_once)
    if not found <= TOLERANCE["float32"]:
        raise ParityError(
            f"the bundle drifts by {found:.2g} from the original's outputs on {len(requests)} requests "
            f"(allowed {TOLERANCE['float32']:.2g}); it was not saved"
        )
    proof = {"drift": found, "arrays_difference": difference, "requests": len(requests)}
    saved = replace(bundle, adopted={**about, "parity": proof}).save(out)
    signature = bundle.signature()
    return {
        "path": str(saved),
        "drift": found,
        "arrays_difference": difference,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "inputs": {name: f"{spec.kind} {spec.shape}" for name, spec in signature.inputs.items()},
        "outputs": {name: f"{spec.kind} {spec.shape}" for name, spec in signature.outputs.items()},
        "notes": list(about.get("notes", ())),
    }


def _drift(ours: Forward, arrays: Arrays, other: Forward, theirs: Arrays, at_once: int) -> float:
    """The largest drift, so many requests at a time."""
    rows, worst = len(next(iter(arrays.values()))), 0.0
    for start in range(0, rows, at_once):
        part = slice(start, start + at_once)
        wanted = other({name: array[part] for name, array in theirs.items()})
        worst = max(worst, parity.drift(ours({name: array[part] for name, array in arrays.items()}), wanted))
    return worst


def fill_from(model: nn.Module, original: nn.Module) -> None:
    """Gives a model's `network` every tensor of the original, those that state dicts leave out included."""
    import torch

    theirs = {**dict(original.named_parameters(remove_duplicate=False)), **dict(original.named_buffers())}
    ours = model.get_submodule("network").state_dict()
    lost = sorted(ours.keys() - theirs.keys())
    assert not lost, f"the original has no {lost[:4]}"
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(theirs[name])


def _opened(path: Path, trust: tuple[str, ...]) -> Bundle:
    """The saved bundle, opened as any later command will open it."""
    try:
        return Bundle.load(path, trust=trust)
    except LuodiError:
        raise
    except Exception as error:  # the constructor of a class made elsewhere: anything may come
        raise LuodiError(
            f"the model cannot be built without numbers (on torch's meta device), as every bundle is opened: {error}; "
            "its constructor must only make layers, parameters and buffers"
        ) from error


def _same_arrays(ours: Arrays, theirs: Arrays) -> float:
    """The largest absolute difference; raises ParityError above rounding."""
    worst = 0.0
    for name, want in theirs.items():
        have = ours[name]
        if have.shape != want.shape:
            raise ParityError(f"{name}: the original's preprocessing gives {want.shape[1:]}, luodi's {have.shape[1:]}")
        found = float(np.abs(have.astype(np.float64) - want).max(initial=0.0))
        largest = max(float(np.abs(want).max(initial=0.0)), 1e-12)
        if not found <= ARRAYS * largest:
            raise ParityError(
                f"{name}: luodi's preprocessing differs from the original's by up to {found:.2g} "
                f"(allowed {ARRAYS * largest:.2g}); this image processor does something that luodi's image field cannot"
            )
        worst = max(worst, found)
    return worst
