"""Weights that were trained elsewhere, for the parts of a fusion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, model_validator

from luodi.core.catalog import name_of
from luodi.core.errors import LuodiError
from luodi.core.step import Step
from luodi.core.thing import ModelConfig, make
from luodi.data.pretrained import Pretrained
from luodi.data.pretraining import bundles, networks, tokens
from luodi.data.pretraining.parts import filled_part
from luodi.data.samples.weights import WEIGHTS, tensors_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.bundle import Bundle
    from luodi.core.run import Run
    from luodi.core.task import Task
    from luodi.data.pretraining.folder import Folder

Part = Annotated[
    Pretrained | None,
    BeforeValidator(
        lambda given: {"weights": given} if isinstance(given, str) else given,
        json_schema_input_type=Pretrained | str | None,
    ),
]


class PretrainedParts(Step):
    """Puts weights that were trained elsewhere into the parts of a fresh fusion; what joins them starts anew.

    `image` is the name of published weights of its image network, `text` a published language network, a model folder
    of transformers or owner/model on the hub, all as the step `pretrained` takes them. The text network comes with its
    layers and its tokenizer. Raises LuodiError if that is less than half of a part.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"split"})
    gives: ClassVar[frozenset[str]] = frozenset({"model", "float", "fitted"})
    excludes: ClassVar[frozenset[str]] = frozenset({"model"})

    image: Part = None  # efficientnet_lite0
    text: Part = None  # minilm_l6, multilingual_e5_small, the path of a folder, or owner/model

    @model_validator(mode="after")
    def _kinds(self) -> PretrainedParts:
        if self.image is None and self.text is None:
            raise ValueError("give `image`, `text`, or both")
        if self.image is not None and self.image.weights not in WEIGHTS:
            raise ValueError(f"`image` is one of {', '.join(WEIGHTS)}, got {self.image.weights}")
        if self.text is not None and self.text.weights in WEIGHTS:
            raise ValueError(f"`text` is a network that reads, got {self.text.weights}")
        return self

    def packages(self) -> Mapping[str, str]:
        return self.text.packages() if self.text is not None else {}

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        if config is None or name_of(type(config)) != "fusion":
            name = name_of(type(config)) if config is not None else "no model"
            return f"only the model fusion has parts, not {name}: use pretrained"
        refusals = [one.not_agreed() for one in (self.image, self.text) if one is not None]
        if refusal := next(filter(None, refusals), None):
            return refusal
        kinds = {field.kind for field in (vars(task).get("inputs") or {}).values()}
        for name, kind in (("image", "image"), ("text", "text")):
            if getattr(self, name) is not None and kind not in kinds:
                return f"no input is of the kind {kind}, so nothing is there for {getattr(self, name).weights}"
        if self.image is not None and vars(config)["image"] != WEIGHTS[self.image.weights].model:
            return f"{self.image.weights} goes into image: {WEIGHTS[self.image.weights].model}"
        if self.text is not None and not _waiting(task):
            return f"{self.text.weights} reads texts in tokens of its own: give the text tokens: pretrained"
        return None

    def cautions(self, device: str) -> tuple[str, ...]:
        return tuple(said for one in (self.image, self.text) if one is not None for said in one.cautions(device))

    def foresee(self, task: Task, config: ModelConfig | None, cache: Path) -> tuple[Task, ModelConfig | None] | None:
        if self.text is None or config is None:
            return task, config
        found = self.text.kept(cache)
        return _reading(task, config, found, self.text.weights) if found is not None else None

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        assert bundle.config is not None
        found = self.text.fetched(run) if self.text is not None else None
        if found is not None:
            task, config = _reading(bundle.task, bundle.config, found, vars(self.text)["weights"])
            bundle = bundle.replace(task=task, config=config)
        bundle = bundle.ready(run)
        model: Any = bundle.model
        notes: dict[str, Any] = {}
        if self.image is not None:
            known = WEIGHTS[self.image.weights]
            wanted = {"mean": known.mean, "std": known.std}
            for name, odd in bundles.odd_pictures(bundle.task, wanted).items():
                run.log("note", {"text": f"{name} is encoded as {odd}; these weights were trained on {wanted}"})
            notes["image"] = _filled(model.image, tensors_of(self.image.weights, run.cache), self.image.weights)
        if found is not None:
            size = max(spec.size for spec in bundle.task.inputs_specs().values())
            tensors = networks.tensors_of(found, vars(bundle)["config"], size)
            notes["text"] = _filled(model.words, tensors, vars(self.text)["weights"])
        return bundle.noting(parts=notes, **(self.text.terms() if self.text is not None else {}))


def _waiting(task: Task) -> bool:
    return any(vars(field).get("tokens") == "pretrained" for field in (vars(task).get("inputs") or {}).values())


def _reading(task: Task, config: ModelConfig, found: Folder, weights: str) -> tuple[Task, ModelConfig]:
    """The task with the folder's tokens, the fusion with its network."""
    whole = tokens.with_tokens(task, tokens.tokens_of(found), weights)
    theirs = vars(networks.config_of(found, None, language=False))
    kept = {key: getattr(config, key) for key in config.model_fields_set}
    filled: Any = make(
        "models", {"fusion": {**kept, "architecture": theirs["architecture"], "config": theirs["config"]}}
    )
    return whole, filled


def _filled(part: nn.Module, tensors: Mapping[str, Tensor], weights: str) -> dict[str, Any]:
    taken, left, share = filled_part(part, tensors)
    if share < 0.5:
        raise LuodiError(f"{weights} has {share:.0%} of the numbers of this part; it lacks {', '.join(left[:4])}")
    return {"weights": weights, "taken": len(taken), "share": share, "fresh": left}
