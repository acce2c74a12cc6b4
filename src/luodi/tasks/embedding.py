"""Texts as vectors that lie near each other where the texts mean the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field as Bounded
from pydantic import field_validator, model_validator

from luodi.core.errors import BadRequest, LuodiError, nearest
from luodi.core.spec import Arrays, Spec
from luodi.core.task import Answer, Exam, Request, Task
from luodi.core.thing import Json, Slot, WrongThing
from luodi.fields.text import Text
from luodi.tasks.reading.columns import checked, column, counted_from, parts, value

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.predictor import Predictor
    from luodi.core.rows import Rows
    from luodi.core.run import Run

VECTOR = "vector"  # the model's output, and the answer


class Embedding(Task):
    """Learns vectors of texts from pairs that mean the same: of one batch, each text is nearest to its own partner.

    The input and the `partner` column hold the pairs (a name in two languages, a question and its answer); one field
    reads both. A request is {input: text}, a text of either kind, an answer {"vector": {"value": `width` numbers of
    length 1}}. Trained by the loss of arXiv 1807.03748 in both directions, over the pairs of a forward. Scored by
    finding each held-out text's partner among all of the other column.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"loss"})

    inputs: dict[str, Annotated[Text, Slot("fields")]]  # one column of text
    partner: str  # the column whose text means the same
    width: Annotated[int, Bounded(ge=2)] = 128  # numbers of a vector; of a published encoder, its own
    temperature: Annotated[float, Bounded(gt=0)] = 0.05  # what likenesses are divided by in training

    @field_validator("inputs")
    @classmethod
    def _one_text(cls, given: dict[str, Any]) -> dict[str, Any]:
        if len(given) != 1 or not isinstance(next(iter(given.values())), Text):
            raise ValueError("an embedding task reads one kind of text: one input, and it is a text")
        return given

    @model_validator(mode="after")
    def _two_columns(self) -> Self:
        if self.partner in self.inputs:
            raise WrongThing([(("partner",), f"{self.partner} is the input: a text would be its own partner")])
        return self

    @property
    def name(self) -> str:
        """The input."""
        return next(iter(self.inputs))

    @property
    def text(self) -> Text:
        return self.inputs[self.name]

    def fit(self, rows: Rows) -> Self:
        both = [request[self.name] for name in (self.name, self.partner) for request in self._requests(rows, name)]
        return self.model_copy(update={"inputs": {self.name: self.text.fit(both)}})

    def inputs_specs(self) -> dict[str, Spec]:
        return {self.name + end: spec for end, spec in self.text.specs().items()}

    def outputs_specs(self) -> dict[str, Spec]:
        return {VECTOR: Spec(kind="number", shape=(self.width,))}

    def read(self, wire: Json) -> Request:
        if not isinstance(wire, Mapping):
            raise BadRequest("", f"expected an object with {self.name}; got {type(wire).__name__}")
        unknown = [str(key) for key in wire if key != self.name]
        if unknown:
            raise BadRequest(unknown[0], f"unknown key; {nearest(unknown[0], [self.name])}")
        if self.name not in wire:
            raise BadRequest(self.name, "missing: the text")
        return {self.name: value(self.name, self.text, wire[self.name])}

    def write(self, request: Request) -> Json:
        return {self.name: self.text.write(request[self.name])}

    def encode(self, requests: Sequence[Request]) -> Arrays:
        arrays = self.text.encode([request[self.name] for request in requests])
        return {self.name + end: array for end, array in arrays.items()}

    def rows_to_requests(self, rows: Rows) -> list[Request]:
        return self._requests(rows, self.name)

    def truth(self, rows: Rows) -> Arrays:
        """The partners as the model is given them, as long as a text may be."""
        arrays = self.encode(self._requests(rows, self.partner))
        specs = self.inputs_specs()
        return {
            name: np.pad(array, [(0, 0), (0, self.text.length - array.shape[1])], constant_values=specs[name].pad)
            for name, array in arrays.items()
        }

    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor], truth: Mapping[str, Tensor]
    ) -> Mapping[str, tuple[Tensor, Tensor, float]]:
        import torch
        from torch.nn import functional

        longest = int(truth[f"{self.name}_mask"].sum(1).max()) if not truth[self.name].is_meta else self.text.length
        partners = {name: tensor[:, :longest] for name, tensor in truth.items()}
        one, other = (functional.normalize(model(**given)[VECTOR].float(), dim=1) for given in (batch, partners))
        likeness = one @ other.T / self.temperature
        own = torch.arange(len(likeness), device=likeness.device)
        there, back = (functional.cross_entropy(table, own, reduction="none") for table in (likeness, likeness.T))
        return {VECTOR: ((there + back) / 2, torch.ones_like(there), 1.0)}

    def decode(self, outputs: Arrays) -> list[Answer]:
        return [{VECTOR: {"value": vector}} for vector in _unit(outputs[VECTOR]).tolist()]

    def samples(self, rows: Rows | None, count: int, run: Run) -> list[Request]:
        if rows is None or not len(rows):
            return self.examples(count, run.seed_for("samples"))
        order = np.resize(run.dice("samples").permutation(len(rows)), count)
        return self.rows_to_requests(rows.take(order))

    def examples(self, count: int, seed: int) -> list[Request]:
        return [{self.name: text} for text in self.text.example(count, seed)]

    def examine(self, predict: Predictor, rows: Rows | None, seconds: float) -> Exam:
        if rows is None or not len(rows):
            raise LuodiError("an embedding task is scored on held-out pairs; there are none (add data and `split`)")
        found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for start, part in parts(rows, seconds):
            for vectors, name in zip(found, (self.name, self.partner), strict=True):
                with counted_from(start):
                    answers = predict(self._requests(part, name))
                vectors.append(np.asarray([answer[VECTOR]["value"] for answer in answers]))
        one, other = map(np.concatenate, found)
        ranks = {"there": _ranks(one, other), "back": _ranks(other, one)}
        own = (one * other).sum(1)
        columns = {f"{VECTOR}.{name}": values for name, values in ranks.items()} | {f"{VECTOR}.likeness": own}
        return Exam(rows.ids[: len(one)], columns)

    def score(self, exam: Exam) -> dict[str, float]:
        ranks = np.concatenate([exam.columns[f"{VECTOR}.{way}"] for way in ("there", "back")])
        found = {
            "recall_at_1": float((ranks <= 1).mean()),
            "recall_at_10": float((ranks <= 10).mean()),
            "reciprocal_rank": float((1 / ranks).mean()),
            "likeness": float(exam.columns[f"{VECTOR}.likeness"].mean()),
        }
        return {f"{VECTOR}.{metric}": value for metric, value in found.items()}

    def metrics(self) -> dict[str, Literal["higher", "lower"]]:
        names = ("recall_at_1", "recall_at_10", "reciprocal_rank", "likeness")
        return {f"{VECTOR}.{name}": "higher" for name in names}

    def wire_schema(self) -> dict[str, Json]:
        vector = {"type": "array", "items": {"type": "number"}, "minItems": self.width, "maxItems": self.width}
        answer = {"type": "object", "properties": {"value": vector}, "required": ["value"]}
        inputs = {self.name: self.text.wire_schema()}
        return {
            "request": {
                "type": "object", "properties": inputs, "required": [self.name], "additionalProperties": False,
            },
            "answer": {"type": "object", "properties": {VECTOR: answer}, "required": [VECTOR]},
        }  # fmt: skip

    def _requests(self, rows: Rows, name: str) -> list[Request]:
        checked(rows, [name])
        return [{self.name: text} for text in column(name, self.text, rows)]


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Each row divided by its length; a row of zeros stays."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1.0, lengths)


def _ranks(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """int64 (rows,): the place of each row's partner among all others by likeness, 1 the nearest; ties count against.

    Done in pieces, so that the table of all likenesses is never whole.
    """
    found = []
    for start in range(0, len(ones), 512):
        table = ones[start : start + 512] @ others.T
        own = table[np.arange(len(table)), np.arange(start, start + len(table))]
        found.append((table >= own[:, None] - 1e-12).sum(1))
    return np.concatenate(found)
