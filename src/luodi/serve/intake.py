"""How calls come in: a body of any allowed kind becomes requests, or a refusal that says what is expected."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, NoReturn

from luodi.core.errors import BadRequest
from luodi.serve.refusal import Refusal, event, text

if TYPE_CHECKING:
    from luodi.core.task import Answer, Request, Task

MOST_REQUESTS = 256  # in one call
JSON = "application/json"
FORM = "multipart/form-data"
EVENTS = "text/event-stream"  # asked for with Accept


class Intake:
    """What a task's calls look like: JSON always, a form or a bare image where one image is asked for."""

    def __init__(self, task: Task, facts: Mapping[str, Any]) -> None:
        self.task = task
        self.schema = task.wire_schema()["request"]
        self.inputs: dict[str, Any] = dict(self.schema.get("properties", {}))
        self.required: list[str] = self.schema.get("required") or list(self.inputs)[:1]  # of several ways, the first
        images = [name for name, spec in task.inputs_specs().items() if spec.kind == "image" and name in self.inputs]
        self.image = images[0] if len(images) == 1 else None
        self.kinds = [JSON]
        if self.image:
            self.kinds += [FORM, *(["image/*"] if len(self.inputs) == 1 else [])]
        self.tail = b"," + text(dict(facts))[1:]
        self._decode = json.JSONDecoder(parse_constant=_no_constant).decode

    def start(self, headers: Mapping[bytes, bytes]) -> Callable[[bytes], Asked]:
        """What makes work of a body of this content type; pieces are sent if the client accepts only events."""
        declared = headers.get(b"content-type", b"").decode("latin-1")
        kind = self.kind(declared)
        streamed = headers.get(b"accept", b"").partition(b";")[0].strip().lower() == EVENTS.encode()
        return lambda body: Asked(self, body, kind, declared, streamed)

    def kind(self, content_type: str) -> str:
        """Which of `kinds` a content type is; raises a 415 that lists them."""
        kind = content_type.partition(";")[0].strip().lower()
        if kind == JSON or (kind.startswith("application/") and kind.endswith("+json")):
            return JSON
        if kind == FORM and FORM in self.kinds:
            return FORM
        if kind.startswith("image/") and "image/*" in self.kinds:
            return "image/*"
        got = f"Content-Type is {kind!r}" if kind else "there is no Content-Type"
        raise Refusal(415, got, expected=" or ".join(self.kinds))

    def wires(self, body: bytes, kind: str, content_type: str) -> tuple[Sequence[Any], bool]:
        """The unread requests of a body, and whether they came as a list."""
        if kind == JSON:
            return self._from_json(body)
        if kind == FORM:
            return [self._from_form(body, content_type)], False
        return [{self.image: body}], False

    def _from_json(self, body: bytes) -> tuple[Sequence[Any], bool]:
        try:
            value = self._decode(body.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise Refusal(400, f"the body is not JSON: {error}", expected=self.shape()) from error
        if not isinstance(value, dict):
            raise Refusal(422, f"the body is {_kind_of(value)}", expected=self.shape())
        if "requests" not in value or "requests" in self.inputs:
            return [value], False
        requests = value["requests"]
        if len(value) > 1:
            other = next(key for key in value if key != "requests")
            raise Refusal(422, f"unknown key {other!r} beside 'requests'", column=other, expected=self.shape())
        if not isinstance(requests, list) or not requests:
            what = "an empty list" if requests == [] else _kind_of(requests)
            raise Refusal(422, f"requests is {what}", column="requests", expected=f"1 to {MOST_REQUESTS} requests")
        if len(requests) > MOST_REQUESTS:
            raise Refusal(
                422, f"{len(requests)} requests in one call", column="requests", expected=f"at most {MOST_REQUESTS}"
            )
        return requests, True

    def _from_form(self, body: bytes, content_type: str) -> dict[str, Any]:
        """A request from a form: a file of any name is the image, if it is the only one."""
        from luodi.core.catalog import require

        multipart = require("python_multipart", "serve")
        request: dict[str, Any] = {}

        def keep(name: str, value: Any) -> None:
            if name in request:
                raise Refusal(422, f"{name!r} is in the form twice", column=name, expected=self.expected(name))
            request[name] = value

        def field(part: Any) -> None:
            keep(part.field_name.decode("utf-8", "replace"), (part.value or b"").decode("utf-8", "replace"))

        def file(part: Any) -> None:
            name = part.field_name.decode("utf-8", "replace")
            part.file_object.seek(0)
            keep(name if name in self.inputs or not self.image else self.image, part.file_object.read())
            part.close()

        headers = {"Content-Type": content_type.encode("latin-1")}
        try:
            multipart.parse_form(headers, BytesIO(body), field, file)
        except multipart.exceptions.FormParserError as error:
            raise Refusal(400, f"the form cannot be read: {error}", expected=f"{FORM} with {self.shape()}") from error
        return request

    def read(self, wires: Sequence[Any], many: bool) -> list[Request]:
        """Requests as the task knows them; raises a 422 that names the column (and the place in a list)."""
        requests: list[Request] = []
        for index, wire in enumerate(wires):
            try:
                if not isinstance(wire, dict):
                    raise BadRequest("", f"a request is {_kind_of(wire)}")
                requests.append(self.task.read(wire))
            except BadRequest as error:
                raise self.refusal(error, {"index": index} if many else None) from error
        return requests

    def refusal(self, error: BadRequest, extra: Mapping[str, Any] | None = None) -> Refusal:
        """A 422 for what a field could not read."""
        return Refusal(
            422, error.message, column=error.column or None, expected=self.expected(error.column), extra=extra
        )

    def unfit(self, error: BadRequest) -> Refusal:
        """The same, of one request."""
        return self.refusal(error)

    def refused(self, refusal: Refusal) -> bytes:
        """The JSON of a refusal."""
        return refusal.body()

    def write(self, answers: Sequence[Answer], many: bool) -> bytes:
        """The answers with what gave them, as strict JSON."""
        if many:
            return b'{"answers":' + text(list(answers)) + self.tail
        return b'{"answer":' + text(answers[0]) + self.tail

    def expected(self, column: str) -> str:
        """What a column (or a whole request) should be, in words."""
        schema = self.inputs.get(column)
        if schema is None:
            return self.shape()
        return str(schema.get("description") or schema.get("title") or schema.get("type") or "see /openapi.json")

    def shape(self) -> str:
        """What a request should look like, in words."""
        names = ", ".join(f'"{name}": ...' for name in list(self.inputs)[:6])
        more = f", and {len(self.inputs) - 6} more (see /openapi.json)" if len(self.inputs) > 6 else ""
        return f'{{{names}{more}}} or {{"requests": [...]}}'


class Asked:
    """One call's body, read and answered in the worker."""

    __slots__ = ("body", "content_type", "intake", "kind", "many", "streamed")

    def __init__(self, intake: Intake, body: bytes, kind: str, content_type: str, streamed: bool) -> None:
        self.intake, self.body, self.kind, self.content_type = intake, body, kind, content_type
        self.many, self.streamed = False, streamed

    def read(self) -> Sequence[Request]:
        wires, self.many = self.intake.wires(self.body, self.kind, self.content_type)
        self.body = b""
        return self.intake.read(wires, self.many)

    def piece(self, place: int, piece: Answer, done: bool) -> bytes:
        return event(text({"index": place, "piece": piece, "done": done}))

    def write(self, answers: Sequence[Answer]) -> bytes:
        whole = self.intake.write(answers, self.many)
        return event(whole) if self.streamed else whole


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _kind_of(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
