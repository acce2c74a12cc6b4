"""Translation: a text written from another text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from luodi.core.errors import BadRequest, LuodiError, nearest
from luodi.core.spec import Arrays, Signature, Spec
from luodi.core.task import Answer, Exam, Forward, Request, Task
from luodi.core.thing import Json, Slot, WrongThing
from luodi.fields.text import AXIS, Text
from luodi.fields.wording.segments import Language, language_of
from luodi.tasks.generation import beams, likelihood, rules, wording
from luodi.tasks.generation.sampling import Sampling
from luodi.tasks.generation.translating import Translating
from luodi.tasks.reading.columns import checked, column, counted_from, fitted, parts, value

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.predictor import Predictor
    from luodi.core.rows import Rows
    from luodi.core.run import Run

SOURCE = "source"  # the free axis of what is read
WRITTEN = 16  # tokens of a representative request
LOOKED = 1000  # rows by which the target's language is known


class Translation(Task):
    """Learns to write one column from another: sequence to sequence, be it a translation, a summary or a spelling.

    A request is {source: text} with the rules of sampling and of the search (`beams`, `length_penalty`) beside it;
    {target: text} may give the beginning of what is written. An answer is {target: {"value": what follows, "tokens":
    how many, "read": those of the source, "finish": "end", "stop" or "length"}}. Scored by the loss of each token
    given those before, and by greedy texts, beside them those of the task's own beams, written from rows.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"loss"})

    inputs: dict[str, Annotated[Text, Slot("fields")]]  # one column of text, the source
    targets: dict[str, Annotated[Text, Slot("fields")]]  # one column of text, which is written
    sampling: Sampling = Sampling()
    search: beams.Search = beams.Search()
    language: Language | None = None  # of the target, in whose words texts are scored; found in the training rows
    translated: Annotated[int, Field(ge=0)] = 400  # held-out rows that are really translated; of others the loss

    @model_validator(mode="after")
    def _two_texts(self) -> Self:
        for side, fields in (("inputs", self.inputs), ("targets", self.targets)):
            if len(fields) != 1 or not isinstance(next(iter(fields.values())), Text):
                raise WrongThing([((side,), "a translation reads one column and writes one; both are texts")])
        names = (*Sampling.model_fields, *beams.Search.model_fields)
        for side, name in (("inputs", self.source), ("targets", self.target)):
            if name in names or name.endswith("_mask"):
                raise WrongThing(
                    [((side, name), "is the name of another part of a request; name the column otherwise")]
                )
        if self.source == self.target:
            raise WrongThing([(("targets", self.target), "is the source itself")])
        if self.written.tokens == "word":
            wrong = "words lose what is between them: take character, bpe, unigram or pretrained"
            raise WrongThing([(("targets", self.target, "tokens"), wrong)])
        if told := beams.objection(self.sampling, self.search):
            raise WrongThing([(("search", "beams"), told)])
        return self

    @property
    def source(self) -> str:
        """The column that is read."""
        return next(iter(self.inputs))

    @property
    def target(self) -> str:
        """The column that is written."""
        return next(iter(self.targets))

    @property
    def text(self) -> Text:
        return self.inputs[self.source]

    @property
    def written(self) -> Text:
        return self.targets[self.target]

    @property
    def _columns(self) -> tuple[tuple[str, Text], tuple[str, Text]]:
        return (self.source, self.text), (self.target, self.written)

    def fit(self, rows: Rows) -> Self:
        checked(rows, (self.source, self.target))
        found = [fitted(name, field, rows) for name, field in self._columns]
        language = self.language or language_of(map(self.written.read, islice(rows.cells(self.target), LOOKED)))
        both = {"inputs": {self.source: found[0]}, "targets": {self.target: found[1]}}
        return self.model_copy(update={**both, "language": language})

    def inputs_specs(self) -> dict[str, Spec]:
        source = {end: spec.model_copy(update={"shape": (SOURCE,)}) for end, spec in self.text.specs().items()}
        both = ((self.source, source), (self.target, self.written.specs()))
        return {name + end: spec for name, specs in both for end, spec in specs.items()}

    def outputs_specs(self) -> dict[str, Spec]:
        size = self.written.cutter.size
        return {self.target: Spec(kind="tokens", shape=(AXIS, size), size=size)}

    def read(self, wire: Json) -> Request:
        if not isinstance(wire, Mapping):
            raise BadRequest("", f"expected an object with {self.source}; got {type(wire).__name__}")
        known = [self.source, self.target, *Sampling.model_fields, *beams.Search.model_fields]
        unknown = [str(key) for key in wire if key not in known]
        if unknown:
            raise BadRequest(unknown[0], f"unknown key; {nearest(unknown[0], known)}")
        if self.source not in wire:
            raise BadRequest(self.source, "missing: the text to write from")
        chosen, search = rules.given(self.sampling, wire), rules.given(self.search, wire)
        if told := beams.objection(chosen, search):
            raise BadRequest("beams", told)
        source = value(self.source, self.text, wire[self.source])
        return self._request(source, value(self.target, self.written, wire.get(self.target, "")), chosen, search)

    def write(self, request: Request) -> Json:
        begun = {self.target: request["begun"]} if request["begun"] else {}
        said = {**request["rules"].model_dump(mode="json"), **request["search"].model_dump(mode="json")}
        return {self.source: request[self.source], **begun, **said}

    def encode(self, requests: Sequence[Request]) -> Arrays:
        source = self.text.encode([request[self.source] for request in requests])
        target = self.written.padded([request["prompt"] for request in requests])
        both = ((self.source, source), (self.target, target))
        return {name + end: array for name, arrays in both for end, array in arrays.items()}

    def rows_to_requests(self, rows: Rows) -> list[Request]:
        """Both texts whole: nothing is written on."""
        checked(rows, (self.source, self.target))
        read = self.sampling.model_copy(update={"max_tokens": 0})
        pairs = zip(*(column(name, field, rows) for name, field in self._columns), strict=True)
        return [self._request(source, target, read, beams.Search()) for source, target in pairs]

    def truth(self, rows: Rows) -> Arrays:
        return {}  # the next tokens are in the inputs

    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor], truth: Mapping[str, Tensor]
    ) -> Mapping[str, tuple[Tensor, Tensor, float]]:
        sums = likelihood.losses(model(**batch)[self.target], batch[self.target], batch[f"{self.target}_mask"])
        return {self.target: (*sums, 1.0)}

    def decode(self, outputs: Arrays) -> list[Answer]:
        """What is likeliest after each place of the target that the outputs hold."""
        cutter = self.written.cutter
        best = outputs[self.target].argmax(axis=2)
        return [{self.target: {"value": cutter.text(ids.tolist()), "tokens": len(ids)}} for ids in best]

    def kept(self, outputs: Arrays) -> Arrays:
        return likelihood.kept(outputs, self.target)

    def flow(self, forward: Forward, signature: Signature | None) -> Translating:
        inputs = {self.source + end: self.inputs_specs()[self.source + end] for end in self.text.specs()}
        return Translating((self.source, self.text), (self.target, self.written), inputs, forward, signature)

    def samples(self, rows: Rows | None, count: int, run: Run) -> list[Request]:
        if rows is None or not len(rows):
            return self.examples(count, run.seed_for("samples"))
        order = np.resize(run.dice("samples").permutation(len(rows)), count)
        short = self.sampling.model_copy(update={"max_tokens": min(WRITTEN, self.sampling.max_tokens)})
        return [
            self._request(text, "", short, self.search) for text in column(self.source, self.text, rows.take(order))
        ]

    def examples(self, count: int, seed: int) -> list[Request]:
        """The odd texts of both languages; every second one goes on from a beginning."""
        most = max(2, min(WRITTEN, likelihood.KEPT // max(count * self.written.cutter.size, 1)))
        begun = [text[:most] for text in self.written.model_copy(update={"length": most}).example(count, seed + 1)]
        few = Sampling(max_tokens=8, seed=seed % 2**63)
        return [
            self._request(text, begun[place] if place % 2 else "", few, beams.Search(beams=1 + place % 4 // 2))
            for place, text in enumerate(self.text.example(count, seed))
        ]

    def examine(self, predict: Predictor, rows: Rows | None, seconds: float) -> Exam:
        if rows is None or not len(rows):
            raise LuodiError("a translation is scored on held-out texts; there are none (add data and `split`)")
        found = []
        for start, part in parts(rows, seconds):
            with counted_from(start):
                found.append(self._examined(predict, part, max(self.translated - start, 0)))
        columns = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
        return Exam(rows.ids[: len(next(iter(columns.values())))], columns)

    def score(self, exam: Exam) -> dict[str, float]:
        columns = {name.removeprefix(f"{self.target}."): column for name, column in exam.columns.items()}
        values = {**wording.values(columns), **likelihood.values(columns)}
        return {f"{self.target}.{metric}": value for metric, value in values.items()}

    def metrics(self) -> dict[str, Literal["higher", "lower"]]:
        written = wording.metrics(self._searches()) if self.translated else {}
        return {f"{self.target}.{metric}": way for metric, way in {**written, **likelihood.BETTER}.items()}

    def headline(self) -> int:
        """BLEU and chrF, greedy beside beams."""
        return 2 * len(self._searches()) if self.translated else 1

    def wire_schema(self) -> dict[str, Json]:
        begun = self.written.wire_schema()
        begun = {**begun, "description": "The beginning of the answer; what follows is written.", "examples": [""]}
        texts = {self.source: self.text.wire_schema(), self.target: begun}
        properties = {**texts, **rules.schema(self.sampling), **rules.schema(self.search)}
        request = {"type": "object", "properties": properties, "required": [self.source], "additionalProperties": False}
        answer = {"type": "object", "properties": {self.target: rules.ANSWER}, "required": [self.target]}
        return {"request": request, "answer": answer}

    def _searches(self) -> dict[str, beams.Search]:
        """End of a metric's name -> the search whose texts it scores: the greedy one, and the task's own."""
        return {"": beams.Search(), **({"_beam": self.search} if self.search.beams > 1 else {})}

    def _examined(self, predict: Predictor, rows: Rows, translated: int) -> dict[str, np.ndarray]:
        """The columns of some rows; counts of those beyond `translated` are zeros."""
        requests = self.rows_to_requests(rows)
        arrays = self.encode(requests)
        sums = likelihood.scored(
            predict.forward(arrays)[self.target], arrays[self.target], arrays[f"{self.target}_mask"]
        )
        truths = [request["begun"] for request in requests]
        found = dict(zip(likelihood.PARTS, [*sums, np.asarray([len(t.encode()) for t in truths])], strict=True))
        if self.translated:
            found |= {"truth": np.asarray(truths, object)}
        for end, search in self._searches().items() if self.translated else ():
            greedy = Sampling(max_tokens=self.sampling.max_tokens)
            asked = [self._request(request[self.source], "", greedy, search) for request in requests[:translated]]
            answers = [answer[self.target]["value"] for answer in predict(asked)] if asked else []
            assert self.language is not None
            found |= wording.columns(answers, truths, self.language, end)
        return {f"{self.target}.{name}": column for name, column in found.items()}

    def _request(self, source: str, begun: str, chosen: Sampling, search: beams.Search) -> dict[str, Any]:
        prompt = self._prompt(begun, whole=chosen.max_tokens == 0)
        return {self.source: source, "begun": begun, "rules": chosen, "search": search, "prompt": prompt}

    def _prompt(self, begun: str, *, whole: bool) -> list[int]:
        """The target's ids after its start mark; a whole text is ended; cut to `length`."""
        field, cutter = self.written, self.written.cutter
        before, after = cutter.frame
        (ids,) = cutter.ids([field.settled(begun)]) if begun else [[]]
        start = list(before) or [cutter.pad]  # what came with weights may have no mark of its own: then padding begins
        end = (list(after) or list(cutter.ends[:1])) if whole else []
        room = field.length - len(start) - max(len(end), 1)
        return [*start, *ids[: max(room, 0)], *end]
