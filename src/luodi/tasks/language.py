"""Language models: what comes next in a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import field_validator

from luodi.core.errors import BadRequest, LuodiError, nearest
from luodi.core.spec import Arrays, Signature, Spec
from luodi.core.task import Answer, Exam, Forward, Request, Task
from luodi.core.thing import Json, Slot, WrongThing
from luodi.fields.text import AXIS, Text
from luodi.tasks.generation import dialogue, likelihood, rules
from luodi.tasks.generation.flow import Generation
from luodi.tasks.generation.sampling import Sampling
from luodi.tasks.reading.columns import checked, column, counted_from, fitted, parts, value

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.predictor import Predictor
    from luodi.core.rows import Rows
    from luodi.core.run import Run

WRITTEN = 16  # tokens of a representative request


class Language(Task):
    """Learns how texts of one column go on, and writes on from a prompt.

    A request is {column: prompt} with the rules of sampling beside it (max_tokens, temperature, top_k, top_p, min_p,
    repetition, seed, stop); `sampling` holds those that a request leaves out. An answer is {column: {"value": text,
    "tokens": how many, "read": those of the prompt, "finish": "end", "stop" or "length"}}. With a `template` a request
    may hold `messages`, [{role, content}], in place of the text. Scored by the loss of each token given those before.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"loss"})

    inputs: dict[str, Annotated[Text, Slot("fields")]]  # one column of text
    sampling: Sampling = Sampling()
    template: str | None = None  # of dialogues: Jinja2, as Hugging Face's chat_template

    @field_validator("template")
    @classmethod
    def _readable(cls, given: str | None) -> str | None:
        return None if given is None else dialogue.checked(given)

    @field_validator("inputs")
    @classmethod
    def _one_text(cls, given: dict[str, Any]) -> dict[str, Any]:
        if len(given) != 1 or not isinstance(next(iter(given.values())), Text):
            raise ValueError("a language model learns one column, and it is a text")
        ((name, field),) = given.items()
        if field.tokens == "word":
            wrong = "words lose what is between them: take character, bpe, unigram or pretrained"
            raise WrongThing([((name, "tokens"), wrong)])
        if name in (*Sampling.model_fields, "messages"):
            raise WrongThing([((name,), "is the name of another part of a request; name the column otherwise")])
        return given

    @property
    def name(self) -> str:
        """The column."""
        return next(iter(self.inputs))

    @property
    def text(self) -> Text:
        return self.inputs[self.name]

    def fit(self, rows: Rows) -> Self:
        checked(rows, [self.name])
        return self.model_copy(update={"inputs": {self.name: fitted(self.name, self.text, rows)}})

    def inputs_specs(self) -> dict[str, Spec]:
        return {self.name + end: spec for end, spec in self.text.specs().items()}

    def outputs_specs(self) -> dict[str, Spec]:
        spec = self.text.specs()[""]
        return {self.name: Spec(kind="tokens", shape=(AXIS, spec.size), size=spec.size)}

    def read(self, wire: Json) -> Request:
        if not isinstance(wire, Mapping):
            raise BadRequest("", f"expected an object with {self.name}; got {type(wire).__name__}")
        inputs = [self.name, *(["messages"] if self.template else [])]
        known = [*inputs, *Sampling.model_fields]
        unknown = [str(key) for key in wire if key not in known]
        if unknown:
            raise BadRequest(unknown[0], f"unknown key; {nearest(unknown[0], known)}")
        given = [key for key in inputs if key in wire]
        if len(given) != 1:
            raise BadRequest(self.name, "missing: the text to go on from" if not given else "is there beside messages")
        chosen = rules.given(self.sampling, wire)
        if given != [self.name]:
            assert self.template is not None
            return self._dialogue(dialogue.turns_of(wire["messages"], self.text, self.template), chosen)
        return self._request(value(self.name, self.text, wire[self.name]), chosen)

    def write(self, request: Request) -> Json:
        said = request["rules"].model_dump(mode="json")
        if "messages" in request:
            return {"messages": request["messages"], **said}
        return {self.name: request["text"], **said}

    def encode(self, requests: Sequence[Request]) -> Arrays:
        arrays = self.text.padded([request["prompt"] for request in requests])
        return {self.name + end: array for end, array in arrays.items()}

    def rows_to_requests(self, rows: Rows) -> list[Request]:
        """Whole texts: nothing is written on."""
        checked(rows, [self.name])
        read = self.sampling.model_copy(update={"max_tokens": 0})
        return [self._request(text, read) for text in column(self.name, self.text, rows)]

    def truth(self, rows: Rows) -> Arrays:
        return {}  # the next tokens are in the inputs

    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor], truth: Mapping[str, Tensor]
    ) -> Mapping[str, tuple[Tensor, Tensor, float]]:
        import torch

        # Where nothing is learned the logits of a few rows after another will do: they may be the largest array of all.
        pieces = [batch] if torch.is_grad_enabled() else likelihood.pieces(batch, self.text.cutter.size)
        mask = f"{self.name}_mask"
        sums = [likelihood.losses(model(**one)[self.name], one[self.name], one[mask]) for one in pieces]
        losses, tokens = (torch.cat(parts) for parts in zip(*sums, strict=True))
        return {self.name: (losses, tokens, 1.0)}

    def decode(self, outputs: Arrays) -> list[Answer]:
        """What is likeliest after each place that the outputs hold."""
        cutter = self.text.cutter
        best = outputs[self.name].argmax(axis=2)
        return [{self.name: {"value": cutter.text(ids.tolist()), "tokens": len(ids)}} for ids in best]

    def kept(self, outputs: Arrays) -> Arrays:
        return likelihood.kept(outputs, self.name)

    def flow(self, forward: Forward, signature: Signature | None) -> Generation:
        return Generation(self.name, self.text, forward, signature)

    def samples(self, rows: Rows | None, count: int, run: Run) -> list[Request]:
        if rows is None or not len(rows):
            return self.examples(count, run.seed_for("samples"))
        order = np.resize(run.dice("samples").permutation(len(rows)), count)
        short = self.sampling.model_copy(update={"max_tokens": min(WRITTEN, self.sampling.max_tokens)})
        return [self._request(text[: len(text) // 2], short) for text in column(self.name, self.text, rows.take(order))]

    def examples(self, count: int, seed: int) -> list[Request]:
        most = max(4, min(self.text.length, likelihood.KEPT // max(count * self.text.cutter.size, 1)))
        short = self.text.model_copy(update={"length": min(most, 64)})
        few = Sampling(max_tokens=8, seed=seed % 2**63)
        found = [self._request(text, few) for text in short.example(count, seed)]
        made: list[Request] = [{**request, "prompt": request["prompt"][:most]} for request in found]
        turns = dialogue.example(seed, self.template, self.text) if self.template else None
        return [*made[:-1], self._dialogue(turns, few)] if turns else made

    def examine(self, predict: Predictor, rows: Rows | None, seconds: float) -> Exam:
        if rows is None or not len(rows):
            raise LuodiError("a language model is scored on held-out texts; there are none (add data and `split`)")
        sums: list[np.ndarray] = []
        sizes: list[int] = []
        for start, part in parts(rows, seconds):
            with counted_from(start):
                requests = self.rows_to_requests(part)
            for arrays in likelihood.pieces(self.encode(requests), self.text.cutter.size):
                logits, ids, mask = predict.forward(arrays)[self.name], arrays[self.name], arrays[f"{self.name}_mask"]
                sums.append(np.column_stack(likelihood.scored(logits, ids, mask)))
            sizes += [len(request["text"].encode()) for request in requests]
        table = np.column_stack([np.concatenate(sums), sizes])
        columns = {f"{self.name}.{part}": table[:, at] for at, part in enumerate(likelihood.PARTS)}
        return Exam(rows.ids[: len(table)], columns)

    def score(self, exam: Exam) -> dict[str, float]:
        columns = {part: exam.columns[f"{self.name}.{part}"] for part in likelihood.PARTS}
        return {f"{self.name}.{metric}": value for metric, value in likelihood.values(columns).items()}

    def metrics(self) -> dict[str, Literal["higher", "lower"]]:
        return {f"{self.name}.{metric}": way for metric, way in likelihood.BETTER.items()}

    def wire_schema(self) -> dict[str, Json]:
        inputs = {self.name: self.text.wire_schema(), **({"messages": dialogue.SCHEMA} if self.template else {})}
        one = {"required": [self.name]} if len(inputs) == 1 else {"oneOf": [{"required": [name]} for name in inputs]}
        properties = {**inputs, **rules.schema(self.sampling)}
        return {
            "request": {"type": "object", "properties": properties, **one, "additionalProperties": False},
            "answer": {"type": "object", "properties": {self.name: rules.ANSWER}, "required": [self.name]},
        }

    def _request(self, text: str, rules: Sampling) -> dict[str, Any]:
        return {"text": text, "rules": rules, "prompt": self._prompt(text, whole=rules.max_tokens == 0)}

    def _dialogue(self, turns: list[dialogue.Turn], rules: Sampling) -> dict[str, Any]:
        assert self.template is not None
        text = dialogue.rendered(self.template, turns, self.text)
        prompt = dialogue.ids_of(text, self.text) or [self.text.cutter.blank]
        ends, stops = dialogue.ending(self.template, self.text)
        return {"text": text, "messages": turns, "rules": rules, "prompt": prompt, "ends": ends, "stops": stops}

    def _prompt(self, text: str, *, whole: bool) -> list[int]:
        """A text's ids with its start mark; a whole text is ended and cut to `length`, of a prompt the end is kept."""
        field, cutter = self.text, self.text.cutter
        framed = field.tokens == "pretrained" or field.marks
        before, after = cutter.frame if framed else ((), ())
        (ids,) = cutter.ids([field.settled(text)])
        if whole:
            end = list(after) or list(cutter.ends[:1] if framed else ())
            return [*before, *ids, *end][: field.length] or [cutter.blank]
        room = field.length - len(before) - 1
        return [*before, *ids[max(len(ids) - room, 0) :]] or [cutter.blank]
