"""A PyTorch class and its state dict as a bundle."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luodi.adopt.proof import Original, fill_from, prove_and_save
from luodi.adopt.state_file import fill, read
from luodi.core import atomic, catalog
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError, nearest
from luodi.core.spec import Arrays, Spec
from luodi.core.task import Task
from luodi.core.thing import ImportPath, Json, ModelConfig, make

if TYPE_CHECKING:
    from torch import nn

NEAR = 1e-4  # how near to 1 the scores of a row sum if they are probabilities


def adopt(
    path: str, weights: Path, arguments: Mapping[str, Json], task: Json, out: Path, trust: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Saves a bundle at `out` that answers as `path(**arguments)` with these weights does; returns what was found.

    `path` is `package.module:Class` or `./file.py:Class`: naming it is trusting it, here and whenever the bundle is
    opened. Its forward takes the task's inputs by position, in the task's order. `task` (as in a recipe, or a recipe)
    has every blank of its fields filled: there are no rows to fit them on. `trust`: other import paths in the task.
    """
    fitted = _task(task)
    network = _network(path, arguments)
    tensors, notes = read(weights)
    fill(network, tensors, weights)
    network.float().eval()
    inputs, outputs = list(fitted.inputs_specs()), fitted.outputs_specs()
    returned = _called(network, fitted.encode(fitted.examples(2, seed=0)), inputs, path)
    gives = _places(returned, list(outputs), path)
    config = make("models", {"foreign": {
        "network": path, "arguments": dict(arguments), "takes": inputs, "gives": gives,
    }})  # fmt: skip
    assert isinstance(config, ModelConfig)
    model: Any = fitted.build(config).float().eval()
    for name, place in gives.items():
        _check(name, model.picked(returned, place), outputs[name], path)
    fill_from(model, network)
    bundle = Bundle(fitted, config, model, facts=frozenset({"model", "float", "fitted"}))

    def forward(arrays: Arrays) -> Arrays:
        given = _called(network, arrays, inputs, path)
        return {name: _shaped(model.picked(given, place), outputs[name]).numpy() for name, place in gives.items()}

    about = {
        "kind": "PyTorch class",
        "source": path,
        "files": {weights.name: atomic.file_sha(weights), path: catalog.source_sha(path)},
        "packages": {"torch": importlib.metadata.version("torch")},
        "notes": notes,
    }
    return prove_and_save(bundle, Original(None, forward), out, about, trust=(path, *trust))


def _task(said: Json) -> Task:
    """The task, every blank filled; raises LuodiError naming the blanks that are open."""
    if isinstance(said, Mapping) and "task" in said:
        said = said["task"]
    task = make("tasks", said)
    assert isinstance(task, Task)
    if catalog.name_of(type(task)) != "supervised":
        raise LuodiError(f"a PyTorch class becomes a supervised task, got {catalog.name_of(type(task))}")
    fields: dict[str, Any] = {**vars(task)["inputs"], **vars(task)["targets"]}
    wrong = [f"{name}: {blanks}" for name, field in fields.items() if (blanks := _open_blanks(field))]
    if wrong:
        raise LuodiError(
            "an import has no rows to fit fields on, so the task must say what they hold; open are " + "; ".join(wrong)
        )
    return task


def _open_blanks(field: Any) -> str:
    """What fitting on rows would fill in, found by fitting on the field's own example."""
    try:
        filled = field.fit(field.wire_schema()["examples"])
    except LuodiError as error:  # labels have no example
        return str(error)
    return ", ".join(name for name, value in field if value is None and getattr(filled, name) is not None)


def _network(path: str, arguments: Mapping[str, Json]) -> nn.Module:
    """The module as its constructor makes it."""
    from torch import nn

    try:
        kind = ImportPath(path).load()
        network = kind(**arguments)
    except (TypeError, ValueError) as error:
        raise LuodiError(f"{path} cannot be made with the arguments {dict(arguments)}: {error}") from error
    if not isinstance(network, nn.Module):
        raise LuodiError(f"{path} makes a {type(network).__name__}, not a torch.nn.Module")
    return network


def _called(network: Any, arrays: Arrays, inputs: list[str], path: str) -> Any:
    import torch

    with torch.inference_mode():
        tensors = [torch.as_tensor(arrays[name]) for name in inputs]
        try:
            return network(*tensors)
        except (TypeError, RuntimeError, ValueError, IndexError) as error:
            given = ", ".join(f"{name} {tuple(t.shape)}" for name, t in zip(inputs, tensors, strict=True))
            raise LuodiError(
                f"{path}: its forward cannot take ({given}), the task's inputs in order: {error}"
            ) from error


def _places(returned: Any, names: list[str], path: str) -> dict[str, int | str]:
    """Target -> where it is in what the module returns."""
    from torch import Tensor

    if isinstance(returned, Tensor):
        returned = (returned,)
    if isinstance(returned, tuple | list) and len(returned) >= len(names):
        return {name: place for place, name in enumerate(names)}
    if isinstance(returned, Mapping):
        tensors = [key for key, value in returned.items() if isinstance(value, Tensor)]
        if len(names) == len(tensors) == 1:
            return {names[0]: tensors[0]}
        lost = [name for name in names if name not in tensors]
        if not lost:
            return {name: name for name in names}
        raise LuodiError(f"{path} returns no {lost[0]!r}; {nearest(lost[0], tensors)}; name the task's targets so")
    count = f"{len(returned)} of them" if isinstance(returned, tuple | list) else type(returned).__name__
    raise LuodiError(f"{path} must return one tensor for each target ({', '.join(names)}), got {count}")


def _shaped(tensor: Any, spec: Spec) -> Any:
    return tensor.float().unsqueeze(-1) if tensor.dim() == len(spec.shape) else tensor.float()


def _check(name: str, given: Any, spec: Spec, path: str) -> None:
    """Raises LuodiError unless the output fits the target."""
    tensor = _shaped(given, spec)
    if tuple(tensor.shape[1:]) != spec.shape:
        raise LuodiError(f"{path} gives {tuple(tensor.shape[1:])} a row for {name}, the task wants {spec.shape}")
    if spec.kind == "category" and bool((tensor >= 0).all()) and bool(((tensor.sum(-1) - 1).abs() < NEAR).all()):
        raise LuodiError(
            f"{path} gives probabilities for {name} (each row sums to 1), a bundle's category takes scores before "
            "softmax; import the class without its last softmax"
        )
