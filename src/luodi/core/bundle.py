"""The one artifact: task, model, edits, forms, golden requests, lineage and evidence."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luodi.core.evidence import Evidence
from luodi.core.form import Form
from luodi.core.source import Data
from luodi.core.spec import Arrays, Signature, Spec
from luodi.core.step import NOT_STORED, Step
from luodi.core.task import Task
from luodi.core.thing import Json, ModelConfig

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.predictor import Predictor
    from luodi.core.run import Run


@dataclass(frozen=True)
class Edit:
    """One change of layers: the step with all its fields, and what a fresh model needs to take the new shapes."""

    step: Step
    plan: Mapping[str, Json] = field(default_factory=dict)
    version: int = 1
    packages: Mapping[str, str] = field(default_factory=dict)  # {package: version} that made it


@dataclass(frozen=True)
class Golden:
    """Requests as they come over the wire, and the arrays, outputs and answers that they must give."""

    requests: tuple[Json, ...]
    arrays: Arrays
    outputs: Mapping[str, Arrays]
    answers: tuple[Json, ...]


@dataclass(frozen=True)
class Bundle:
    """A frozen value; a step owns the model it is given, `fork()` is the only copy."""

    task: Task
    config: ModelConfig | None = None
    model: nn.Module | None = None
    parts: Mapping[str, Bundle] = field(default_factory=dict)
    helpers: Mapping[str, Any] = field(default_factory=dict)
    data: Data | None = None
    edits: tuple[Edit, ...] = ()
    forms: Mapping[str, Form] = field(default_factory=dict)
    serving: str = "torch"
    facts: frozenset[str] = frozenset()
    golden: Golden | None = None
    evidence: tuple[Evidence, ...] = ()
    notes: Mapping[str, Json] = field(default_factory=dict)  # what the last step reports of itself, for its evidence
    adopted: Mapping[str, Json] = field(default_factory=dict)  # where a model made elsewhere came from, and its parity

    def replace(self, **changes: Any) -> Bundle:
        """Another task, data, fact or evidence; never the model (use `with_model`)."""
        assert not changes.keys() & {"model", "forms", "serving", "edits"}
        return replace(self, **changes)

    def noting(self, **notes: Json) -> Bundle:
        """The bundle with what a step reports of itself."""
        return replace(self, notes={**self.notes, **notes})

    def with_model(
        self, model: nn.Module, *, edit: Edit | None = None, helpers: Mapping[str, Any] | None = None
    ) -> Bundle:
        """A changed model: ends every form and the golden outputs."""
        edits = (*self.edits, edit) if edit else self.edits
        return replace(
            self, model=model, edits=edits, forms={}, serving="torch", golden=None, facts=self.facts - {"forms"},
            helpers=self.helpers if helpers is None else helpers,
        )  # fmt: skip

    def with_form(self, name: str, form: Form) -> Bundle:
        """The bundle with one more form, which now answers and is served."""
        return replace(self, forms={**self.forms, name: form}, serving=name, facts=self.facts | {"forms"})

    def without_data(self) -> Bundle:
        """The bundle as a saved one would come back: no rows, no facts about rows."""
        return replace(self, data=None, facts=self.facts - NOT_STORED)

    def ready(self, run: Run) -> Bundle:
        """Fields fitted on the training split and a fresh model built, where they were not."""
        bundle = self
        if "fitted" not in bundle.facts:
            assert bundle.data is not None, "ready() needs rows or a fitted task"
            train = bundle.data.splits.get("train", bundle.data.splits.get("all"))
            assert train is not None
            bundle = replace(bundle, task=bundle.task.fit(train), facts=bundle.facts | {"fitted"})
        if bundle.model is None:
            import torch

            assert bundle.config is not None, "a recipe without a model cannot build one"
            torch.default_generator.manual_seed(run.seed_for("model"))
            bundle = replace(
                bundle, model=bundle.task.build(bundle.config).to(run.device), facts=bundle.facts | {"model", "float"}
            )
        return bundle

    def blank(self) -> Bundle:
        """No model, edits, helpers, forms or golden outputs: the one door to a fresh start."""
        gone = {"model", "float", "forms", "fitted", "exposed", "private", "adapters", "ensemble", "signed", "sealed"}
        return replace(
            self, model=None, edits=(), helpers={}, forms={}, serving="torch", golden=None, facts=self.facts - gone,
            adopted={},
        )  # fmt: skip

    def fork(self) -> Bundle:
        """A deep copy of the model and helpers: the only way to keep the bundle before a step."""
        return replace(self, model=deepcopy(self.model), helpers=deepcopy(dict(self.helpers)))

    def signature(self) -> Signature:
        """The named arrays of the model, from the fitted task; and the states that the model carries from call to
        call, which it tells as `states`: state input -> (its spec, the output that goes on with it).

        A model that reads some inputs once for all calls tells which as `reads`, and what it makes of them as
        `memories`: its forward then gives these of the `reads` alone, and takes them in their place. Of a model that
        says `one_by_one` a form takes one token a call.
        """
        from luodi.core.predictor import HELD, START

        states: Mapping[str, tuple[Spec, str]] = getattr(self.model, "states", {})
        memories: Mapping[str, Spec] = getattr(self.model, "memories", {})
        inputs, outputs = dict(self.task.inputs_specs()), dict(self.task.outputs_specs())
        reading = None
        if memories:
            read = {name: inputs[name] for name in getattr(self.model, "reads", ())}
            reading = Signature(inputs=read, outputs=dict(memories))
            inputs = {name: spec for name, spec in inputs.items() if name not in read or spec.kind == "mask"}
            inputs |= memories
        for name, (spec, after) in states.items():
            inputs[name] = outputs[after] = spec
            if HELD in spec.shape:
                inputs[START] = Spec(kind="number", dtype="int64")
        state = {name: after for name, (_, after) in states.items()}
        if getattr(self.model, "one_by_one", False):
            inputs, outputs = ({name: _one(spec) for name, spec in side.items()} for side in (inputs, outputs))
        return Signature(inputs=inputs, outputs=outputs, state=state, reading=reading)

    def predictor(self, form: str | None = None, *, threads: int = 1) -> Predictor:
        """The task with a form's forward; `form` defaults to the serving one."""
        from luodi.core.predictor import Predictor, TorchForward, opened

        name = form or self.serving
        if name == "torch":
            assert self.model is not None, "this bundle was opened without its torch model"
            return Predictor(self.task, TorchForward(self.model), self.signature())
        from luodi.core.catalog import resolve

        chosen = self.forms[name]
        runtime: Any = resolve("runtimes", chosen.kind)
        forward = opened(runtime, chosen.folder, chosen.properties, chosen.signature, threads)
        return Predictor(self.task, forward, chosen.signature)

    def save(self, path: Path) -> Path:
        """Writes the folder aside and renames it into place; a kill at any moment leaves it whole or absent."""
        from luodi.core.store import save

        return save(self, Path(path))

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        form: str | None = None,
        check: bool = True,
        trust: tuple[str, ...] = (),
        device: str = "cpu",
    ) -> Bundle:
        """Opens a saved bundle, checks its hashes and replays its golden requests (`check`).

        `form`: None loads the torch model and every form's files; a form's name opens only that one, without torch.
        """
        from luodi.core.store import load

        return load(Path(path), form=form, check=check, trust=trust, device=device)


def weights_count(model: nn.Module) -> int:
    """Numbers held by the model: parameters and buffers."""
    return sum(int(np.prod(tensor.shape)) for tensor in model.state_dict().values())


def _one(spec: Spec) -> Spec:
    """The spec of one token, or of what is said of it."""
    free = spec.kind in ("tokens", "mask") and spec.shape and isinstance(spec.shape[0], str)
    return spec.model_copy(update={"shape": (1, *spec.shape[1:])}) if free else spec
