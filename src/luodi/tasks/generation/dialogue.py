"""Dialogues: turns become one text by a template that lies in the bundle, in the form that Hugging Face's have."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from luodi.core.errors import BadRequest
from luodi.core.thing import Json

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from luodi.fields.text import Text

ROLES = ("system", "user", "assistant", "tool")
MOST = 1000  # turns of a dialogue
MARK = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{2,20}\]|<<[A-Z_]{2,20}>>")  # what templates set turns apart with
SCHEMA: dict[str, Json] = {
    "type": "array",
    "minItems": 1,
    "maxItems": MOST,
    "description": "A dialogue, in place of the text; the model writes the next turn.",
    "items": {
        "type": "object",
        "properties": {"role": {"type": "string", "enum": list(ROLES)}, "content": {"type": "string"}},
        "required": ["role", "content"],
        "additionalProperties": False,
    },
}
ENGLISH, CHINESE = "How many moons has Mars?", "火星有几个卫星？"

Turn = dict[str, str]  # role, content


def checked(source: str) -> str:
    """The template; ValueError where it cannot be read."""
    from jinja2 import TemplateSyntaxError

    try:
        _compiled(source)
    except TemplateSyntaxError as error:
        raise ValueError(f"line {error.lineno} of the template: {error.message}") from error
    return source


def turns_of(wire: Json, field: Text, source: str) -> list[Turn]:
    """The turns of a request; raises BadRequest, also for a content that would be read as a mark."""
    if not isinstance(wire, Sequence) or isinstance(wire, str) or not 0 < len(wire) <= MOST:
        raise BadRequest("messages", f"expected 1 to {MOST} objects with role and content")
    found: list[Turn] = []
    for at, turn in enumerate(wire):
        if not isinstance(turn, Mapping) or set(turn) != {"role", "content"}:
            raise BadRequest("messages", f"turn {at}: expected an object with role and content, and nothing else")
        if turn["role"] not in ROLES:
            raise BadRequest("messages", f"turn {at}: the role is one of {', '.join(ROLES)}, not {turn['role']!r}")
        try:
            content = field.read(turn["content"])
        except BadRequest as error:
            raise BadRequest("messages", f"turn {at}: {error.message}") from error
        mark = _forged(content, field, source)
        if mark:
            told = f"turn {at} holds {mark!r}, with which this model's turns are set apart: it cannot be sent as text"
            raise BadRequest("messages", told)
        found.append({"role": turn["role"], "content": content})
    return found


def rendered(source: str, turns: Sequence[Turn], field: Text) -> str:
    """The text of a dialogue, up to where the model's turn begins; raises BadRequest with what the template says."""
    from jinja2 import TemplateError

    try:
        return _written(source, turns, field, open_turn=True)
    except (TemplateError, TypeError) as error:
        raise BadRequest("messages", f"the bundle's template refuses these turns: {error}") from error


def ids_of(text: str, field: Text) -> list[int]:
    """The ids of a rendered dialogue: what the template put in as marks are marks."""
    settled = field.model_copy(update={"prefix": ""}).settled(text)
    (ids,) = field.cutter.ids([settled], marked=True)
    if len(ids) >= field.length:
        told = f"the dialogue is {len(ids)} tokens long and at most {field.length - 1} are read: leave out old turns"
        raise BadRequest("messages", told)
    return ids


def ending(source: str, field: Text) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """What the template puts after a turn of the model, which ends that turn: a mark's id, or else a text."""
    from jinja2 import TemplateError

    said = "Two 两个"
    turns = [{"role": "user", "content": ENGLISH}, {"role": "assistant", "content": said}]
    try:
        after = _written(source, turns, field, open_turn=False).partition(said)[2].strip()
    except (TemplateError, TypeError):
        return (), ()
    if not after:
        return (), ()
    marked, plain = (field.cutter.ids([after], marked=way)[0] for way in (True, False))
    if marked[0] != plain[0]:
        return (marked[0],), ()
    mark = MARK.match(after)
    return (), ((mark.group(),) if mark else ())


def example(seed: int, source: str, field: Text) -> list[Turn] | None:
    """A dialogue in two languages, the longest that the template and the field's length take; None: they take none."""
    question, answer = (ENGLISH, CHINESE) if seed % 2 == 0 else (CHINESE, ENGLISH)
    whole = [
        {"role": "system", "content": "简短 short"}, {"role": "user", "content": question},
        {"role": "assistant", "content": "2 两个"}, {"role": "user", "content": answer},
    ]  # fmt: skip
    for turns in (whole, whole[1:], whole[1:2], [{"role": "user", "content": "Hi"}]):
        try:
            ids_of(rendered(source, turns, field), field)
        except BadRequest:
            continue
        return turns
    return None


def _forged(content: str, field: Text, source: str) -> str:
    """A mark that is in a content, "" if none is: what the tokenizer reads as one, or the template sets turns apart
    with."""
    settled = field.model_copy(update={"prefix": ""}).settled(content)
    plain, marked = (field.cutter.ids([settled], marked=way)[0] for way in (False, True))
    if plain != marked:
        at = next((at for at, pair in enumerate(zip(plain, marked, strict=False)) if pair[0] != pair[1]), len(marked))
        return field.cutter.unit(marked[at]) if at < len(marked) else content[:40]
    return next((mark for mark in _marks(source) if mark in content or mark in settled), "")


@cache
def _marks(source: str) -> frozenset[str]:
    """What in a template's own words sets turns apart."""
    from jinja2 import nodes

    tree = _environment().parse(source)
    words = [part.data for part in tree.find_all(nodes.TemplateData)]
    words += [part.value for part in tree.find_all(nodes.Const) if isinstance(part.value, str)]
    return frozenset(mark for word in words for mark in MARK.findall(word))


def _written(source: str, turns: Sequence[Turn], field: Text, *, open_turn: bool) -> str:
    cutter = field.cutter
    first = "".join(cutter.unit(token) for token in cutter.frame[0])
    last = cutter.unit(cutter.ends[0]) if cutter.ends else ""
    return _compiled(source).render(
        messages=[dict(turn) for turn in turns], add_generation_prompt=open_turn, bos_token=first, eos_token=last,
        tools=None, documents=None,
    )  # fmt: skip


@cache
def _compiled(source: str) -> Template:
    return _environment().from_string(source)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    """The one that Hugging Face's templates are written for; nothing in it knows the time."""
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], autoescape=False
    )
    made.filters.update({"tojson": tojson})
    own: dict[str, Any] = {"raise_exception": refuse}
    made.globals.update(own)
    return made
