"""Inputs to targets: classification, regression, fusion of inputs, several targets at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import field_validator, model_validator

from luodi.core.catalog import entries, load, name_of
from luodi.core.errors import BadRequest, LuodiError, nearest
from luodi.core.field import Field, Target
from luodi.core.spec import Arrays, Spec
from luodi.core.task import Answer, Exam, Request, Task
from luodi.core.thing import Json, Slot, WrongThing
from luodi.tasks.reading.columns import checked, column, counted_from, fitted, parts, value

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.predictor import Predictor
    from luodi.core.rows import Rows
    from luodi.core.run import Run

LEARNING = frozenset({"weight", "weights", "label_smoothing", "distance"})  # settings that mean nothing for an input


class Supervised(Task):
    """Learns target columns from input columns: classification, regression, several inputs, several targets.

    A request holds every input; columns that are targets may come along and are not looked at.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"loss"})

    inputs: dict[str, Annotated[Field, Slot("fields")]]  # column -> field
    targets: dict[str, Annotated[Target, Slot("fields")]]  # column -> field that can be learned

    @field_validator("inputs")
    @classmethod
    def _only_read(cls, given: dict[str, Any]) -> dict[str, Any]:
        problems = [
            ((name, key), "only a target is learned; an input has no use for this")
            for name, field in given.items()
            for key, known in type(field).model_fields.items()
            if key in LEARNING and getattr(field, key) != known.default
        ]
        if problems:
            raise WrongThing(list(problems))
        return given

    @field_validator("inputs", "targets")
    @classmethod
    def _some(cls, given: dict[str, Any]) -> dict[str, Any]:
        if not given:
            raise ValueError("at least one column is needed")
        return given

    @field_validator("targets")
    @classmethod
    def _learnable(cls, given: dict[str, Any]) -> dict[str, Any]:
        problems: list[Any] = []
        for name, field in given.items():
            if not isinstance(field, Target):
                can = [n for n in entries("fields") if issubclass(load("fields", n), Target)]
                problems.append(((name,), f"{name_of(type(field))} cannot be a target; these can: {', '.join(can)}"))
            elif not 0 < field.weight < inf:
                problems.append(((name, "weight"), f"must be above 0, got {field.weight}"))
            elif vars(field).get("missing", "refuse") != "refuse" or vars(field).get("unseen", "refuse") != "refuse":
                problems.append(
                    ((name,), "a target's gaps cannot be filled in: leave `missing` and `unseen` at refuse")
                )
        if problems:
            raise WrongThing(problems)
        return given

    @model_validator(mode="after")
    def _apart(self) -> Self:
        both = sorted(self.inputs.keys() & self.targets.keys())
        if both:
            raise WrongThing([(("targets", name), "is an input too: the answer would be given away") for name in both])
        return self

    def fit(self, rows: Rows) -> Self:
        checked(rows, (*self.inputs, *self.targets))
        return self.model_copy(
            update={
                "inputs": {name: fitted(name, field, rows) for name, field in self.inputs.items()},
                "targets": {name: fitted(name, field, rows) for name, field in self.targets.items()},
            }
        )

    def inputs_specs(self) -> dict[str, Spec]:
        return {
            name + end: spec.model_copy(update={"shape": tuple(_own_axis(name, side) for side in spec.shape)})
            for name, field in self.inputs.items()
            for end, spec in field.specs().items()
        }

    def outputs_specs(self) -> dict[str, Spec]:
        found: dict[str, Spec] = {}
        for name, target in self.targets.items():
            spec = target.specs()[""]
            shape = (
                (spec.size,) if spec.kind == "category" else spec.shape
            )  # a category is learned as one score a label
            found[name] = Spec(kind=spec.kind, shape=shape, size=spec.size)
        return found

    def read(self, wire: Json) -> Request:
        if not isinstance(wire, Mapping):
            raise BadRequest("", f"expected an object with {', '.join(self.inputs)}; got {type(wire).__name__}")
        if wire.keys() != self.inputs.keys():
            unknown = [str(name) for name in wire if name not in self.inputs and name not in self.targets]
            if unknown:
                raise BadRequest(unknown[0], f"unknown column; {nearest(unknown[0], self.inputs)}")
            lost = [name for name in self.inputs if name not in wire]
            if lost:
                raise BadRequest(lost[0], f"missing; needed: {', '.join(self.inputs)}")
        return {name: value(name, field, wire[name]) for name, field in self.inputs.items()}

    def write(self, request: Request) -> Json:
        return {name: field.write(request[name]) for name, field in self.inputs.items()}

    def encode(self, requests: Sequence[Request]) -> Arrays:
        found: dict[str, np.ndarray] = {}
        for name, field in self.inputs.items():
            try:
                arrays = field.encode([request[name] for request in requests])
            except BadRequest as error:
                raise BadRequest(name, error.message) from error
            found.update({name + end: array for end, array in arrays.items()})
        return found

    def rows_to_requests(self, rows: Rows) -> list[Request]:
        """The inputs of stored rows as requests; other columns are left; BadRequest names the row and the column."""
        checked(rows, self.inputs)
        columns = {name: column(name, field, rows) for name, field in self.inputs.items()}
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]

    def truth(self, rows: Rows) -> Arrays:
        checked(rows, self.targets)
        return {name: field.encode(column(name, field, rows))[""] for name, field in self.targets.items()}

    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor], truth: Mapping[str, Tensor]
    ) -> Mapping[str, tuple[Tensor, Tensor, float]]:
        outputs = model(**batch)
        return {name: (*field.loss(outputs[name], truth[name]), field.weight) for name, field in self.targets.items()}

    def decode(self, outputs: Arrays) -> list[Answer]:
        columns = {name: field.decode(outputs[name]) for name, field in self.targets.items()}
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]

    def samples(self, rows: Rows | None, count: int, run: Run) -> list[Request]:
        if rows is None or not len(rows):
            return self.examples(count, run.seed_for("samples"))
        order = run.dice("samples").permutation(len(rows))
        return self.rows_to_requests(rows.take(np.resize(order, count)))

    def examples(self, count: int, seed: int) -> list[Request]:
        columns = {name: field.example(count, _seed(seed, name)) for name, field in self.inputs.items()}
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]

    def examine(self, predict: Predictor, rows: Rows | None, seconds: float) -> Exam:
        if rows is None or not len(rows):
            raise LuodiError("a supervised task is scored on held-out rows; there are none (add data and `split`)")
        checked(rows, (*self.inputs, *self.targets))
        answers: list[Answer] = []
        truths: dict[str, list[Any]] = {name: [] for name in self.targets}
        for start, part in parts(rows, seconds):
            with counted_from(start):
                answers += predict(self.rows_to_requests(part))
                for name, field in self.targets.items():
                    truths[name] += column(name, field, part)
        columns: dict[str, np.ndarray] = {}
        for name, field in self.targets.items():
            record = field.record([answer[name] for answer in answers], truths[name])
            columns.update({f"{name}.{part}": array for part, array in record.items()})
        return Exam(rows.ids[: len(answers)], columns)

    def score(self, exam: Exam) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, field in self.targets.items():
            start = f"{name}."
            record = {key[len(start) :]: column for key, column in exam.columns.items() if key.startswith(start)}
            found.update({f"{name}.{metric}": value for metric, value in field.score(record).items()})
        return found

    def metrics(self) -> dict[str, Literal["higher", "lower"]]:
        return {f"{name}.{metric}": way for name, field in self.targets.items() for metric, way in field.better.items()}

    def wire_schema(self) -> dict[str, Json]:
        def of(parts: dict[str, Json]) -> Json:
            return {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}

        return {
            "request": of({name: field.wire_schema() for name, field in self.inputs.items()}),
            "answer": of({name: field.answer_schema() for name, field in self.targets.items()}),
        }


def _own_axis(name: str, side: int | str) -> int | str:
    """The free axis of a column: two texts of one request are not equally long."""
    return f"{name}_{side}" if isinstance(side, str) else side


def _seed(seed: int, name: str) -> int:
    return int.from_bytes(sha256(repr((seed, name)).encode()).digest()[:8], "big") >> 1
