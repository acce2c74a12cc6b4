"""The same model for another runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from luodi.core.spec import Arrays, Signature
from luodi.core.thing import Json, ModelConfig, Thing

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.task import Forward, Task

# Relative drift allowed between two computations that claim the same arithmetic.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2, "float64": 1e-8}


class Form(BaseModel):
    """One exported form: `folder` is its directory on this disk, `drift` its distance from torch when it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str  # a file of export/runtimes/
    folder: Path  # saved as the form's name; absolute once opened
    signature: Signature
    arithmetic: str  # "float32", "bfloat16", "int8": what it computes in
    tolerance: float  # relative, against its own golden outputs, on any machine
    drift: float  # relative, against the torch outputs, when it was made
    properties: dict[str, Json] = {}  # what the runtime must be told to compute the same again


class Written(BaseModel):
    """What a runtime says of the files it wrote."""

    arithmetic: str
    properties: dict[str, Json] = {}


class Runtime(Thing):
    """One runtime, one file: `write` imports torch inside the call, `open` must not import torch."""

    library: ClassVar[str] = ""  # the package that `open` imports: loaded before memory is weighed
    offers: ClassVar[tuple[Mapping[str, Json], ...]] = ()  # fields of `export` that a search for steps may try
    activations: Literal["float", "int8"] = "float"  # int8: static, calibrated on rows of the training split

    def packages(self) -> Mapping[str, str]:
        """{package: extra} that writing needs."""
        return {}

    def write(
        self, model: nn.Module, example: Arrays, signature: Signature, folder: Path, calibration: Arrays | None
    ) -> Written:
        """Writes the model's files into an empty folder. `example` has at least two rows; every first axis is free."""
        raise NotImplementedError

    def beside(self, task: Task, folder: Path) -> None:
        """Writes what of the task belongs into the form's folder too, such as a tokenizer: by default nothing."""

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        """Why this runtime cannot hold such a model, in the nature of things; None: it can."""
        return None

    def open(self, folder: Path, properties: Mapping[str, Json], threads: int) -> Forward:
        """A forward over those files: named arrays in, named arrays out."""
        raise NotImplementedError
