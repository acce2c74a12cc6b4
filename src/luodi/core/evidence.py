"""What was measured of a saved bundle: values with intervals, and the change against the step before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

RIVALS = "against"  # the note of a last evidence that holds what its bundle was compared with
Verdict = Literal["better", "worse", "same", "undecided"]


def plain(model: BaseModel) -> Any:
    """A model as strict JSON data: what is not finite is a text."""
    return json.loads(model.model_dump_json())


class Change(BaseModel):
    """A paired difference (after minus before) with its 95% interval."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
    value: float
    low: float
    high: float


class Measure(BaseModel):
    """A value with its 95% interval and the rows or calls behind it."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
    value: float
    low: float
    high: float
    count: int
    change: Change | None = None  # against the parent, on the same rows or in interleaved calls
    verdict: Verdict | None = None  # None: there is no parent, or it was measured on other rows


class Evidence(BaseModel):
    """One row of the table: a step and the form that was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
    step: dict[str, Any] | None  # the step, every field; None: the bundle a recipe started from
    name: str  # the step's name in the recipe
    number: int  # its place in the recipe, from 1
    form: str  # "torch", "onnx", "onnx-int8"...; "" while there is no model
    measures: dict[str, Measure] = {}  # "label.accuracy", "p50_ms", "p95_ms", "size_mb", "memory_mb", "process_mb"...
    headline: int = 1  # how many metrics of the task, from the main one on, stand in the table
    touched: float | None = None  # share of the weights whose values or type the step changed
    rows: str = ""  # fingerprint of the examples it was scored on
    words: tuple[str, ...] = ()  # what the step changed, in words, what got worse included
    notes: dict[str, Any] = {}  # what the step itself reported (rows in and out, history of the loss...)
    machine: dict[str, Any] = {}  # processor, cores, threads, versions, busy
    records: str = ""  # file name of the answers, under the run's records/
    seconds: float = 0.0  # of the step itself
    measuring: float = 0.0  # of this evidence
    rehearsal: bool = False


def faced(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The rivals that the last evidence holds, a row each: named as they are, the difference to them in words."""
    held = evidence[-1].notes.get(RIVALS, {}) if evidence else {}
    return [Evidence.model_validate(rival["evidence"]) for rival in held.values()]
