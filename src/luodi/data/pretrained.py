"""Weights that were trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import model_validator

from luodi.core import store
from luodi.core.catalog import name_of
from luodi.core.errors import LuodiError, nearest
from luodi.core.step import Step
from luodi.core.thing import ModelConfig, dump
from luodi.data.samples.weights import WEIGHTS, tensors_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.bundle import Bundle
    from luodi.core.run import Run
    from luodi.core.task import Task


class Pretrained(Step):
    """Puts weights that were trained elsewhere into a fresh model; its last layers start anew.

    `weights` is the name of published ones, fetched once into the cache with their SHA-256 checked, or the path of a
    bundle, whose model the recipe takes if it names none. Every tensor of the same name and shape is taken; the heads,
    made for the new labels, stay as they were drawn. Raises LuodiError if that is less than half of the network.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"split"})
    gives: ClassVar[frozenset[str]] = frozenset({"model", "float", "fitted"})
    excludes: ClassVar[frozenset[str]] = frozenset({"model"})

    weights: str  # efficientnet_lite0, or the path of a bundle
    digest: str | None = None  # of that bundle, written down when the recipe is read: another one there is no longer it

    @model_validator(mode="before")
    @classmethod
    def _pinned(cls, given: Any) -> Any:
        path = given.get("weights") if isinstance(given, dict) else None
        if isinstance(path, str) and path not in WEIGHTS and given.get("digest") is None and _is_bundle(path):
            return {**given, "digest": store.peek(Path(path))["digest"]}
        return given

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        known = WEIGHTS.get(self.weights)
        if known is None:
            return None
        if config is None:
            return f"{self.weights} goes into a model: give the recipe model: {known.model}"
        name = name_of(type(config))
        return None if name == known.model else f"{self.weights} goes into the model {known.model}, not into {name}"

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        donor, tensors = self._donor(run)
        if bundle.config is None and donor is not None:
            bundle = bundle.replace(config=donor.config)
        bundle = bundle.ready(run)
        assert bundle.model is not None
        taken, left = _filled(bundle.model, tensors)
        numbers = {name: tensor.numel() for name, tensor in bundle.model.state_dict().items()}
        share = sum(numbers[name] for name in taken) / max(sum(numbers.values()), 1)
        if share < 0.5:
            raise LuodiError(
                f"{self.weights} has {len(taken)} of the model's {len(numbers)} tensors, {share:.0%} "
                f"of its numbers; it lacks {', '.join(left[:4])}"
            )
        theirs = self._pictures(donor)
        for name, odd in _odd_pictures(bundle.task, theirs).items():
            run.log("note", {"text": f"{name} is encoded as {odd}; these weights were trained on {theirs}"})
        facts = bundle.facts | (donor.facts & {"exposed", "private"} if donor is not None else frozenset())
        return bundle.replace(facts=facts).noting(taken=len(taken), share=share, fresh=left)

    def _donor(self, run: Run) -> tuple[Bundle | None, Mapping[str, Tensor]]:
        """The bundle that the weights are of, None for published ones, and the tensors by name."""
        from luodi.core.bundle import Bundle

        if self.weights in WEIGHTS:
            return None, tensors_of(self.weights, run.cache)
        if not _is_bundle(self.weights):
            raise LuodiError(f"{self.weights!r} is no bundle; {nearest(self.weights, WEIGHTS)}")
        found = store.peek(Path(self.weights))["digest"]
        if self.digest not in (None, found):
            raise LuodiError(f"{self.weights} is another bundle now ({found[:12]}, not {self.digest[:12]})")
        donor = Bundle.load(Path(self.weights), device=run.device)
        if donor.model is None or "float" not in donor.facts:
            raise LuodiError(f"{self.weights} holds no float weights; name the bundle before it was changed")
        return donor, donor.model.state_dict()

    def _pictures(self, donor: Bundle | None) -> dict[str, Any]:
        """Mean and deviation of the pictures' channels that the weights were trained with."""
        if donor is None:
            known = WEIGHTS[self.weights]
            return {"mean": known.mean, "std": known.std}
        found = list(_pictures_of(donor.task).values())
        return found[0] if found else {}


def _is_bundle(path: str) -> bool:
    return any((Path(path) / inner / "bundle.json").is_file() for inner in ("", "bundle"))


def _filled(model: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Copies what fits; the names of tensors that were taken, and of those that stay fresh.

    The heads stay fresh whatever fits: equal shapes do not mean equal labels in equal order.
    """
    import torch

    from luodi.train.loop.learning import stages_of

    last = {id(parameter) for parameter in stages_of(model)[-1].parameters}
    taken, left = [], []
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            given = tensors.get(name)
            if given is None or given.shape != tensor.shape or id(tensor) in last:
                left.append(name)
            else:
                tensor.copy_(given)
                taken.append(name)
    return taken, left


def _pictures_of(task: Task) -> dict[str, dict[str, Any]]:
    """Image column -> its mean and deviation."""
    inputs = next(iter(dump(task).values())).get("inputs") or {}
    images = {column: field["image"] for column, field in inputs.items() if "image" in field}
    return {column: {key: field[key] for key in ("mean", "std")} for column, field in images.items()}


def _odd_pictures(task: Task, wanted: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Image columns whose mean or deviation is off by more than 0.05."""

    def off(one: Any, other: Any) -> bool:
        return bool(one) and bool(other) and max(abs(a - b) for a, b in zip(one, other, strict=True)) > 0.05

    return {
        column: found
        for column, found in _pictures_of(task).items()
        if any(off(found[key], wanted.get(key)) for key in ("mean", "std"))
    }
