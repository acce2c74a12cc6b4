"""Answers cut from a text that comes with the question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field as Bounded
from pydantic import field_validator, model_validator

from luodi.core.errors import BadRequest, LuodiError, nearest
from luodi.core.spec import Arrays, Signature, Spec
from luodi.core.task import Answer, Exam, Forward, Request, Task
from luodi.core.thing import Json, Slot, WrongThing
from luodi.fields.text import AXIS, Text
from luodi.fields.wording.metrics import METRICS
from luodi.fields.wording.segments import Language
from luodi.tasks.reading.columns import checked, column, counted_from, parts, value
from luodi.tasks.spans.best import best_of, characters, sums
from luodi.tasks.spans.flow import Asked, Reading
from luodi.tasks.spans.truths import Place, place_of
from luodi.tasks.spans.windows import Reader, Window

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.predictor import Predictor
    from luodi.core.rows import Rows
    from luodi.core.run import Run

SCORED = ("f1", "exact_match")
SAME = ("tokens", "vocabulary", "at_least", "forms", "case", "marks")  # of both texts: they become one row of tokens
LEAST = 16  # tokens of a context beside the longest question
ELSEWHERE = 3  # of so many training rows with several windows, one is read where its answer is not


class Answering(Task):
    """Answers a question with a piece of the text that comes with it: where it begins and ends is learned.

    A request is {question, context}, an answer {answer: {"value": the piece, "start", "end": its characters in the
    context, "probability"}}; where a training row's answer is empty, "there is none" (value "", start null) may be the
    answer too. Question and context are one row of tokens, of at most the context field's `length`; a longer context is
    read in windows that share `overlap` tokens, all of them in answering, one of each row in training: mostly one that
    holds the answer. Rows hold the answer as text, or several that are equally right, and in `start` the character it
    begins at (none: the first place where it stands). Scored by F1 and exact match, as SQuAD is.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"loss"})

    inputs: dict[str, Annotated[Text, Slot("fields")]]  # two columns: the question and the context
    context: str = "context"  # which of the two is searched
    target: str = "answer"  # the column of true answers
    start: str | None = "start"  # the column that says where an answer begins
    overlap: Annotated[int, Bounded(ge=0)] = 64  # tokens that two windows share
    longest: Annotated[int, Bounded(ge=1)] = 30  # most tokens of an answer
    language: Language = "en"  # what the metrics take for a word
    may_be_none: bool | None = None  # whether "there is no answer" is one; None: whether a training row says so

    @field_validator("inputs")
    @classmethod
    def _alike(cls, given: dict[str, Any]) -> dict[str, Any]:
        if len(given) != 2 or not all(isinstance(field, Text) for field in given.values()):
            raise ValueError("two columns are read, and both are texts: the question and the context")
        one, other = given.values()
        for name, field in given.items():
            if field.prefix:
                raise WrongThing([((name, "prefix"), "the two texts are read together; leave it out")])
        for key in SAME:
            if getattr(one, key) != getattr(other, key):
                raise WrongThing([((next(iter(given)), key), "both texts are cut alike: set the same for both")])
        return given

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.context not in self.inputs:
            raise WrongThing([(("context",), f"is no input; {nearest(self.context, self.inputs)}")])
        if self.target in self.inputs:
            raise WrongThing([(("target",), "is an input too: the answer would be given away")])
        room = self.inputs[self.context].length - self.inputs[self.question].length - LEAST
        if self.overlap > room:
            raise WrongThing(
                [((f"inputs.{self.context}", "length"), f"leaves no room beside a question: it is more than "
                  f"{LEAST} + `overlap` ({self.overlap}) above the question's {self.inputs[self.question].length}")]
            )  # fmt: skip
        return self

    @property
    def question(self) -> str:
        """The column of questions."""
        return next(name for name in self.inputs if name != self.context)

    @property
    def fixed(self) -> frozenset[str]:
        return frozenset({self.context})

    def fit(self, rows: Rows) -> Self:
        checked(rows, (*self.inputs, self.target))
        searched = self.inputs[self.context].fit(chain.from_iterable(map(rows.cells, self.inputs)))
        asked = self.inputs[self.question].model_copy(update={"learned": searched.learned})
        none = self.may_be_none
        if none is None:
            none = any(place is None for _, place in self._truths(rows))
        inputs = {self.question: asked, self.context: searched}
        return self.model_copy(update={"inputs": inputs, "may_be_none": none})

    def inputs_specs(self) -> dict[str, Spec]:
        found = self.inputs[self.context].specs()
        specs = {**found, "_part": found["_mask"]}
        return {self.context + end: spec for end, spec in specs.items()}

    def outputs_specs(self) -> dict[str, Spec]:
        return {self.target: Spec(kind="sequence", shape=(AXIS, 2), size=2)}

    def read(self, wire: Json) -> Request:
        if not isinstance(wire, Mapping):
            raise BadRequest("", f"expected an object with {', '.join(self.inputs)}; got {type(wire).__name__}")
        known = (*self.inputs, self.target, self.start)
        unknown = [str(name) for name in wire if name not in known]
        if unknown:
            raise BadRequest(unknown[0], f"unknown column; {nearest(unknown[0], self.inputs)}")
        lost = [name for name in self.inputs if name not in wire]
        if lost:
            raise BadRequest(lost[0], f"missing; needed: {', '.join(self.inputs)}")
        return {name: value(name, field, wire[name]) for name, field in self.inputs.items()}

    def write(self, request: Request) -> Json:
        return {name: request[name] for name in self.inputs}

    def encode(self, requests: Sequence[Request]) -> Arrays:
        """The first window of each, or the one that a training row is read in."""
        return self._reader.arrays(self.context, [self._shown(request)[0] for request in requests])

    def rows_to_requests(self, rows: Rows) -> list[Request]:
        """With the true answer's characters beside them, where the rows hold one: it says which window is learned."""
        checked(rows, self.inputs)
        columns = {name: column(name, field, rows) for name, field in self.inputs.items()}
        found = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        if self.target in rows.columns:
            for request, (_, place) in zip(found, self._truths(rows), strict=True):
                request["place"] = place
        return list(found)

    def truth(self, rows: Rows) -> Arrays:
        checked(rows, (self.target,))
        places = [self._shown(request)[1] for request in self.rows_to_requests(rows)]
        return {self.target: np.asarray(places, np.int64).reshape(-1, 2)}

    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor], truth: Mapping[str, Tensor]
    ) -> Mapping[str, tuple[Tensor, Tensor, float]]:
        from torch.nn import functional

        logits, places = model(**batch)[self.target], truth[self.target]
        out = batch[f"{self.context}_part"] == 0
        out[:, 0] = False  # the first place stands for "not here"
        logits = logits.float().masked_fill(out.unsqueeze(-1), -1e9)
        losses = functional.cross_entropy(logits, places.clamp(min=0), reduction="none").mean(1)
        there = (places[:, 0] >= 0).to(losses.dtype)
        return {self.target: (losses * there, there, 1.0)}

    def decode(self, outputs: Arrays) -> list[Answer]:
        """The best places of each row of tokens: which characters they are, only a flow knows."""
        found: list[Answer] = []
        for row in outputs[self.target].astype(np.float64):
            table = sums(row[:, 0], row[:, 1], self.longest)
            first, more = divmod(int(table.argmax()), self.longest)
            share = 1 / float(np.exp(table - table.max()).sum())
            found.append({self.target: {"places": [first, first + more], "probability": share}})
        return found

    def flow(self, forward: Forward, signature: Signature | None) -> Reading:
        return Reading((self.question, self.context, self.target), self._reader, forward, self._answer)

    def samples(self, rows: Rows | None, count: int, run: Run) -> list[Request]:
        if rows is None or not len(rows):
            return self.examples(count, run.seed_for("samples"))
        return self.rows_to_requests(rows.take(np.resize(run.dice("samples").permutation(len(rows)), count)))

    def examples(self, count: int, seed: int) -> list[Request]:
        contexts = self.inputs[self.context].example(count, seed)
        asked = self.inputs[self.question].example(count, seed + 1)
        return [{self.question: one, self.context: other} for one, other in zip(asked, contexts, strict=True)]

    def examine(self, predict: Predictor, rows: Rows | None, seconds: float) -> Exam:
        if rows is None or not len(rows):
            raise LuodiError("answers are scored on held-out rows; there are none (add data and `split`)")
        checked(rows, (*self.inputs, self.target))
        answers: list[Answer] = []
        truths: list[Any] = []
        for first, part in parts(rows, seconds):
            with counted_from(first):
                truths += [texts for texts, _ in self._truths(part)]
                answers += predict(self.rows_to_requests(part))
        given = [answer[self.target] for answer in answers]
        values = [answer["value"] for answer in given]
        columns: dict[str, np.ndarray] = {
            "value": np.asarray(values, object),
            "truth": np.asarray([texts[0] for texts in truths], object),
            "probability": np.asarray([answer["probability"] for answer in given], np.float64),
            **{name: METRICS[name].counts(values, truths, self.language) for name in SCORED},
        }
        return Exam(rows.ids[: len(answers)], {f"{self.target}.{name}": column for name, column in columns.items()})

    def score(self, exam: Exam) -> dict[str, float]:
        names = {f"{self.target}.{name}": METRICS[name] for name in SCORED}
        return {name: metric.value(exam.columns[name].sum(axis=0)) for name, metric in names.items()}

    def metrics(self) -> dict[str, Literal["higher", "lower"]]:
        return {f"{self.target}.{name}": METRICS[name].better for name in SCORED}

    def wire_schema(self) -> dict[str, Json]:
        def of(parts: dict[str, Json]) -> Json:
            return {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}

        searched = self.inputs[self.context].wire_schema()
        about = f"A text that is searched for the answer, in windows of {self.inputs[self.context].length} tokens."
        place: Json = {"type": ["integer", "null"], "minimum": 0, "description": f"A character of {self.context}."}
        answer = of({
            "value": {"type": "string", "description": f"A piece of {self.context}; empty: there is no answer."},
            "start": place, "end": place, "probability": {"type": "number", "minimum": 0, "maximum": 1},
        })  # fmt: skip
        answer["x-piece-of"] = self.context  # a page shows the answer in it
        asked = self.inputs[self.question].wire_schema()
        inputs = {self.question: asked, self.context: {**searched, "description": about}}
        return {"request": of(inputs), "answer": of({self.target: answer})}

    @property
    def _reader(self) -> Reader:
        return Reader(self.inputs[self.question], self.inputs[self.context], self.overlap)

    def _answer(self, asked: Asked) -> dict[str, Any]:
        best = best_of(asked.windows, asked.logits, self.longest, none=bool(self.may_be_none))
        if best.span is None:
            return {"value": "", "start": None, "end": None, "probability": best.probability}
        start, end = characters(asked.text, asked.spans, best.span)
        return {"value": asked.text[start:end], "start": start, "end": end, "probability": best.probability}

    def _shown(self, request: Request) -> tuple[Window, tuple[int, int]]:
        """The window that a request is encoded as, and where in it the answer begins and ends: (0, 0) where it is not
        there, (-1, -1) where no window holds all of it."""
        text, spans = request[self.context], self.inputs[self.context].spans(request[self.context])
        windows = self._reader.windows(request[self.question], spans)
        if "place" not in request:
            return windows[0], (0, 0)
        dice = int.from_bytes(sha256(f"{request[self.question]}\0{text}".encode()).digest()[:4], "big")
        place: Place = request["place"]
        if place is None:
            return windows[dice % len(windows)], (0, 0)
        inside = [at for at, (_, start, end) in enumerate(spans) if end > place[0] and start < place[1]]
        first, last = (inside[0], inside[-1]) if inside else (0, -1)
        holding = [window for window in windows if window.first <= first <= last < window.end]
        others = [window for window in windows if last < window.first or window.end <= first]
        if others and dice % ELSEWHERE == 0:
            return others[dice // ELSEWHERE % len(others)], (0, 0)
        if not holding:
            return windows[0], (-1, -1)
        window = holding[dice // ELSEWHERE % len(holding)]
        return window, (first - window.first + window.place, last - window.first + window.place)

    def _truths(self, rows: Rows) -> list[tuple[tuple[str, ...], Place]]:
        """The right texts of each row, and the first one's characters in the context."""
        starts = rows.column(self.start) if self.start in rows.columns else [None] * len(rows)
        found = []
        for at, (cell, start, text) in enumerate(
            zip(rows.column(self.target), starts, rows.column(self.context), strict=True)
        ):
            try:
                found.append(place_of(cell, start, self.inputs[self.context].read(text)))
            except BadRequest as error:
                raise BadRequest(self.target, f"row {at}: {error.message}") from error
        return found
