"""/v1/embeddings: texts as vectors."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from luodi.core.errors import BadRequest
from luodi.serve.intake import JSON
from luodi.serve.openai.options import IDLE, for_model, parsed, texts_of
from luodi.serve.openai.told import told
from luodi.serve.refusal import Refusal, text

if TYPE_CHECKING:
    from luodi.core.task import Answer, Request, Task


@dataclass(frozen=True)
class Embedder:
    """What the server knows of a task whose answer is a vector of a text: their names, and how many numbers."""

    task: Task
    name: str
    column: str
    answer: str
    width: int


def embedder_of(task: Task, name: str) -> Embedder | None:
    """The embedder, if one text goes in and one list of numbers of a fixed length comes out; else None."""
    schema = task.wire_schema()
    answers, inputs = schema["answer"].get("properties", {}), schema["request"].get("properties", {})
    if len(answers) != 1 or len(inputs) != 1:
        return None
    (column, asked), (answer, given) = *inputs.items(), *answers.items()
    value = given.get("properties", {}).get("value", {})
    numbers = value.get("type") == "array" and value.get("items") == {"type": "number"}
    if not numbers or asked.get("type") != "string" or value.get("minItems") != value.get("maxItems"):
        return None
    return Embedder(task, name, column, answer, value["maxItems"])


class Embeddings:
    """How the path is asked."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def start(self, headers: Mapping[bytes, bytes]) -> Callable[[bytes], Embedded]:
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
        if kind != JSON:
            raise Refusal(415, f"Content-Type is {kind!r}", expected=JSON)
        return lambda body: Embedded(self.embedder, body)

    def unfit(self, error: BadRequest) -> Refusal:
        column = "input" if error.column == self.embedder.column else error.column or None
        return Refusal(400, error.message, column=column)

    def refused(self, refusal: Refusal) -> bytes:
        return told(refusal)


class Embedded:
    """One call, read and answered in the worker."""

    streamed = False

    def __init__(self, embedder: Embedder, body: bytes) -> None:
        self.embedder, self.body = embedder, body
        self.packed, self.tokens = False, 0

    def read(self) -> Sequence[Request]:
        value, own = for_model(parsed(self.body), self.embedder.name), self.embedder
        self.body = b""
        if "input" not in value:
            raise Refusal(400, "`input` is missing", column="input")
        texts = texts_of(value.pop("input"), "input")
        form, width = value.pop("encoding_format", "float"), value.pop("dimensions", own.width)
        if form not in ("float", "base64"):
            raise Refusal(400, "`encoding_format` is float or base64", column="encoding_format")
        if isinstance(width, bool) or width != own.width:
            raise Refusal(400, f"`dimensions` can only be {own.width} with this bundle", column="dimensions")
        if odd := next((key for key in value if key not in IDLE), None):
            raise Refusal(400, f"unknown option `{odd}`", column=odd)
        self.packed = form == "base64"
        requests = [own.task.read({own.column: one}) for one in texts]
        self.tokens = int(own.task.encode(requests)[f"{own.column}_mask"].sum())
        return requests

    def piece(self, place: int, piece: Answer, done: bool) -> bytes:
        return b""  # a vector is whole or not there

    def write(self, answers: Sequence[Answer]) -> bytes:
        vectors = [self._vector(answer[self.embedder.answer]["value"]) for answer in answers]
        data = [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(vectors)]
        usage = {"prompt_tokens": self.tokens, "total_tokens": self.tokens}
        return text({"object": "list", "data": data, "model": self.embedder.name, "usage": usage})

    def _vector(self, value: list[float]) -> Any:
        """The numbers; packed, they are little-endian float32 in base64."""
        return base64.b64encode(np.asarray(value, "<f4").tobytes()).decode("ascii") if self.packed else value
