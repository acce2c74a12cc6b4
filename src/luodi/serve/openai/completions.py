"""/v1/completions and /v1/chat/completions: a text goes on, whole or piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from luodi.core.errors import BadRequest
from luodi.serve.intake import JSON
from luodi.serve.openai.options import Options, for_model, options, parsed
from luodi.serve.openai.told import told
from luodi.serve.refusal import Refusal, event, text

if TYPE_CHECKING:
    from luodi.core.task import Answer, Request, Task

REASONS = {"end": "stop", "stop": "stop", "length": "length"}
LAST = event(b"[DONE]")


@dataclass(frozen=True)
class Writer:
    """What the server knows of a task that writes: `given` is the column of what it is asked, `column` of what it
    writes (the same where a text goes on), `rules` are those of sampling."""

    task: Task
    name: str
    fingerprint: str
    given: str
    column: str
    rules: tuple[str, ...]
    talks: bool  # whether a dialogue may take the text's place


def writer_of(task: Task, name: str, fingerprint: str) -> Writer | None:
    """The writer, if the answer of a task is a text with the reason why it ended; else None."""
    schema = task.wire_schema()
    answers, inputs = schema["answer"].get("properties", {}), schema["request"].get("properties", {})
    columns = [key for key, part in answers.items() if {"value", "finish"} <= set(part.get("properties", {}))]
    if len(answers) != 1 or len(columns) != 1 or columns[0] not in inputs:
        return None
    (column,), required = columns, schema["request"].get("required", [])
    given = required[0] if len(required) == 1 else column
    rules = tuple(key for key in inputs if key not in (given, column, "messages"))
    return Writer(task, name, fingerprint, given, column, rules, "messages" in inputs)


class Completions:
    """How one of the two paths is asked."""

    def __init__(self, writer: Writer, *, chat: bool) -> None:
        self.writer, self.chat = writer, chat

    def start(self, headers: Mapping[bytes, bytes]) -> Callable[[bytes], Completion]:
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
        if kind != JSON:
            raise Refusal(415, f"Content-Type is {kind!r}", expected=JSON)
        return lambda body: Completion(self, body)

    def unfit(self, error: BadRequest) -> Refusal:
        column = "prompt" if error.column == self.writer.column else error.column or None
        return Refusal(400, error.message, column=column)

    def refused(self, refusal: Refusal) -> bytes:
        return told(refusal)

    def understood(self, body: bytes) -> Options:
        """The options of a body; raises Refusal."""
        writer = self.writer
        value = for_model(parsed(body), writer.name)
        if self.chat and not writer.talks:
            why = "this bundle has no chat template (the task's `template`), so it reads no messages"
            raise Refusal(400, f"{why}; /v1/completions goes on from a prompt", column="messages")
        return options(value, writer.column, writer.rules, chat=self.chat)


class Completion:
    """One call, read and answered in the worker."""

    def __init__(self, path: Completions, body: bytes) -> None:
        self.path, self.body = path, body
        self.streamed = self.usage = False
        self.begun: set[int] = set()
        kind = "chatcmpl" if path.chat else "cmpl"
        self.head = {
            "id": f"{kind}-{uuid4().hex}",
            "object": "chat.completion" if path.chat else "text_completion",
            "created": int(time()),
            "model": path.writer.name,
            "system_fingerprint": path.writer.fingerprint,
        }

    def read(self) -> Sequence[Request]:
        asked = self.path.understood(self.body)
        self.body = b""
        self.streamed, self.usage = asked.streamed, asked.usage
        if self.streamed and self.path.chat:
            self.head["object"] = "chat.completion.chunk"
        return [self.path.writer.task.read(wire) for wire in asked.wires]

    def piece(self, place: int, piece: Answer, done: bool) -> bytes:
        found = piece[self.path.writer.column]
        sent = b""
        if self.path.chat and place not in self.begun:
            self.begun.add(place)
            sent = self._event(self._choice(place, {"role": "assistant", "content": ""}, None))
        if found["value"]:
            sent += self._event(self._choice(place, {"content": found["value"]}, None))
        if done:
            sent += self._event(self._choice(place, {}, REASONS[found["finish"]]))
        return sent

    def write(self, answers: Sequence[Answer]) -> bytes:
        found = [answer[self.path.writer.column] for answer in answers]
        read, written = (sum(one[key] for one in found) for key in ("read", "tokens"))
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        if self.streamed:
            return (event(text({**self.head, "choices": [], "usage": usage})) if self.usage else b"") + LAST
        choices = [self._whole(place, one["value"], REASONS[one["finish"]]) for place, one in enumerate(found)]
        return text({**self.head, "choices": choices, "usage": usage})

    def _event(self, choice: dict[str, Any]) -> bytes:
        return event(text({**self.head, "choices": [choice], **({"usage": None} if self.usage else {})}))

    def _choice(self, place: int, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
        if self.path.chat:
            return {"index": place, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {"index": place, "text": delta.get("content", ""), "logprobs": None, "finish_reason": reason}

    def _whole(self, place: int, written: str, reason: str) -> dict[str, Any]:
        if self.path.chat:
            message = {"role": "assistant", "content": written, "refusal": None}
            return {"index": place, "message": message, "logprobs": None, "finish_reason": reason}
        return {"index": place, "text": written, "logprobs": None, "finish_reason": reason}
