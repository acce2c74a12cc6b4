"""Writes the model for another runtime and measures how far its answers moved."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from luodi.core import catalog
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError
from luodi.core.form import TOLERANCE, Form, Runtime, Written
from luodi.core.predictor import READING, TorchForward, opened
from luodi.core.step import Facts, Step
from luodi.core.thing import ImportPath, Json, WrongThing
from luodi.export.tracing.drift import flips, largest_drift
from luodi.export.tracing.states import in_parts, with_states

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from luodi.core.run import Run
    from luodi.core.spec import Arrays, Signature
    from luodi.core.task import Task
    from luodi.core.thing import ModelConfig

EXAMPLES = 16  # requests on which a form is compared with torch, in one batch and one by one


class Export(Step):
    """Writes the model as a form for another runtime, opens it, and measures how far its answers moved.

    A form that claims its model's precision must answer as torch does (float32: 1e-4 of the largest output) or is
    refused. `activations: int8` makes a static int8 form of a float model, whose ranges come from training rows.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model"})
    gives: ClassVar[frozenset[str]] = frozenset({"forms"})

    to: str  # a runtime: onnx, openvino, hugging_face
    activations: Literal["float", "int8"] = "float"
    calibration: int = Field(256, ge=2)  # training rows that set the ranges of int8 activations

    @field_validator("to")
    @classmethod
    def _is_runtime(cls, name: str, info: ValidationInfo) -> str:
        name = ImportPath.checked(name, info.context) if ":" in name else name  # a bundle's own code is not run unasked
        try:
            catalog.load("runtimes", name)
        except LuodiError as error:
            raise WrongThing([((), str(error))]) from error
        return name

    @classmethod
    def offers(cls) -> Sequence[Mapping[str, Json]]:
        kinds = {name: catalog.load("runtimes", name) for name in catalog.entries("runtimes")}
        return [{"to": name, **fields} for name, kind in kinds.items() for fields in kind.offers]

    def facts(self, have: frozenset[str]) -> Facts:
        if self.activations == "float":
            return super().facts(have)
        # Ranges come from training rows; only a task that makes its own (a game) has none.
        rows = frozenset() if "world" in have else frozenset({"split"})
        return Facts(self.needs | {"float"} | rows, self.gives, self.ends, self.excludes)

    def packages(self) -> Mapping[str, str]:
        return self._runtime().packages()

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        return self._runtime().objection(task, config)

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        assert bundle.model is not None
        name, runtime, static = self._form_name(), self._runtime(), self.activations == "int8"
        folder = run.out / "forms" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        signature = bundle.signature()
        examples = bundle.task.encode(bundle.task.examples(EXAMPLES, run.seed_for("export")))
        examples = with_states(examples, signature, run)
        torch_forward = TorchForward(bundle.model.to("cpu"))
        calibration = self._rows(bundle, "train", run) if static else None
        written = _write(runtime, torch_forward, examples, signature, folder, calibration)
        runtime.beside(bundle.task, folder)
        forward = opened(runtime, folder, written.properties, signature, run.threads)
        drift = on_examples = largest_drift(torch_forward, forward, examples)
        self._refuse_drift(drift, written.arithmetic)
        if static:  # examples reach beyond the calibrated ranges, where a static form clips: held-out rows tell more
            drift = largest_drift(torch_forward, forward, self._rows(bundle, "validation", run))
        form = Form(
            kind=self.to,
            folder=folder,
            signature=signature,
            arithmetic=written.arithmetic,
            tolerance=TOLERANCE.get(written.arithmetic) or flips(forward, examples, run.dice("nudge")),
            drift=drift,
            properties=written.properties,
        )
        bundle.model.to(run.device)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
        return bundle.with_form(name, form).noting(
            form=name, arithmetic=written.arithmetic, drift=drift, drift_on_examples=on_examples, bytes=sizes
        )

    def _refuse_drift(self, drift: float, arithmetic: str) -> None:
        """Raises LuodiError for a form that claims its model's precision and does not hold it, or is not finite."""
        allowed = TOLERANCE.get(arithmetic, sys.float_info.max)
        if not drift <= allowed:
            raise LuodiError(
                f"export to {self.to}: the form's outputs differ from torch's by {drift:.2g} of the largest output, "
                f"{arithmetic} allows {allowed:.2g}; nothing was exported. Try another runtime: luodi list runtimes"
            )

    def _runtime(self) -> Runtime:
        runtime = catalog.resolve("runtimes", {self.to: {"activations": self.activations}})
        assert isinstance(runtime, Runtime)
        return runtime

    def _form_name(self) -> str:
        """onnx, onnx-int8; a runtime of the user's own is named as its class."""
        kind = self.to.rpartition(":")[2].lower()
        return kind if self.activations == "float" else f"{kind}-{self.activations}"

    def _rows(self, bundle: Bundle, split: str, run: Run) -> Arrays:
        """At most `calibration` rows of a split (of the training one where it is empty), as the model's arrays."""
        assert bundle.data is not None or "world" in bundle.task.gives, "int8 ranges need training rows"
        rows = None if bundle.data is None else bundle.data.splits.get(split) or bundle.data["train"]
        count = self.calibration if rows is None else min(self.calibration, len(rows))
        arrays = bundle.task.encode(bundle.task.samples(rows, count, run.at(split)))
        return with_states(arrays, bundle.signature(), run.at(split))


def _write(
    runtime: Runtime, model: TorchForward, examples: Arrays, signature: Signature, folder: Path,
    calibration: Arrays | None,
) -> Written:  # fmt: skip
    """Writes the model's files; what it does once for all steps is a graph of its own, in a folder inside."""
    if signature.reading is None:
        return runtime.write(model.model, examples, signature, folder, calibration)
    (folder / READING).mkdir()
    read, step = in_parts(examples, signature, model)
    ranges = in_parts(calibration, signature, model) if calibration else (None, None)
    first = runtime.write(model.model, read, signature.reading, folder / READING, ranges[0])
    second = runtime.write(model.model, step, signature, folder, ranges[1])
    assert first == second, "a runtime says the same of both parts"
    return second
