"""Weights of a bundle of ours, or of published ones for our own models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luodi.core import store
from luodi.core.errors import LuodiError
from luodi.core.thing import ModelConfig, Trust, dump, make

if TYPE_CHECKING:
    from luodi.core.bundle import Bundle
    from luodi.core.task import Task


def is_bundle(path: str) -> bool:
    """Whether a bundle, or a run with one, lies there."""
    return any((Path(path) / inner / "bundle.json").is_file() for inner in ("", "bundle"))


def opened(path: str, digest: str | None, device: str) -> Bundle:
    """The bundle with its float weights; raises LuodiError if it is another one now, or holds none."""
    from luodi.core.bundle import Bundle

    found = store.peek(Path(path))["digest"]
    if digest not in (None, found):
        raise LuodiError(f"{path} is another bundle now ({found[:12]}, not {digest[:12]})")
    donor = Bundle.load(Path(path), device=device)
    if donor.model is None or "float" not in donor.facts:
        raise LuodiError(f"{path} holds no float weights; name the bundle before it was changed")
    return donor


def told(path: str) -> tuple[Any, ModelConfig | None]:
    """(task, model config) of a bundle, read from its bundle.json alone; its assets are found when they are needed."""
    from luodi.core.asset import assets_of

    head = store.peek(Path(path))
    trust = Trust((), head["own"])
    task: Any = make("tasks", head["task"], trust)
    for asset in assets_of(task):
        asset.found(store.located(Path(path)) / "assets")
    config: Any = make("models", head["config"], trust) if head["config"] else None
    return task, config


def with_its_tokens(task: Task, donor: Task, path: str) -> Task:
    """The task with the donor's tokens in text fields that cut as the donor's one does: its weights know no others.

    Raises LuodiError where a field waits for a tokenizer that the donor does not have.
    """
    inputs: Mapping[str, Any] = vars(task).get("inputs") or {}
    donors = [one for one in (vars(donor).get("inputs") or {}).values() if vars(one).get("learned") is not None]
    given: dict[str, Any] = {}
    for name, one in inputs.items():
        if "learned" not in type(one).model_fields or vars(one)["learned"] is not None:
            continue
        like = [other for other in donors if vars(other)["tokens"] == vars(one)["tokens"]]
        if len(like) == 1:
            given[name] = one.model_copy(update={"learned": vars(like[0])["learned"]})
        elif vars(one)["tokens"] == "pretrained":
            kinds = ", ".join(sorted({vars(other)["tokens"] for other in donors})) or "none"
            raise LuodiError(f"{name}: the texts of {path} are cut into tokens of the kind {kinds}; say the same here")
    return task.model_copy(update={"inputs": {**inputs, **given}}) if given else task


def pictures_of(task: Task) -> dict[str, dict[str, Any]]:
    """Image column -> its mean and deviation."""
    inputs = next(iter(dump(task).values())).get("inputs") or {}
    images = {column: field["image"] for column, field in inputs.items() if "image" in field}
    return {column: {key: field[key] for key in ("mean", "std")} for column, field in images.items()}


def odd_pictures(task: Task, wanted: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Image columns whose mean or deviation is off by more than 0.05."""

    def off(one: Any, other: Any) -> bool:
        return bool(one) and bool(other) and max(abs(a - b) for a, b in zip(one, other, strict=True)) > 0.05

    return {
        column: found
        for column, found in pictures_of(task).items()
        if any(off(found[key], wanted.get(key)) for key in ("mean", "std"))
    }
