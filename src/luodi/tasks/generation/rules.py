"""The rules of a request: the task's own, with those that the request gives in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from luodi.core.errors import BadRequest
from luodi.core.thing import Json, problems_of

Rules = TypeVar("Rules", bound=BaseModel)

ANSWER: dict[str, Json] = {  # the schema of one written text
    "type": "object",
    "properties": {
        "value": {"type": "string"},
        "tokens": {"type": "integer"},
        "read": {"type": "integer"},
        "finish": {"type": "string", "enum": ["end", "stop", "length"]},
    },
    "required": ["value", "tokens", "read", "finish"],
}


def given(own: Rules, wire: Mapping[str, Any]) -> Rules:
    """The rules with what of them a request names; raises BadRequest naming the rule."""
    kind = type(own)
    said = {name: wire[name] for name in kind.model_fields if name in wire}
    if not said:
        return own
    try:
        return kind.model_validate({**own.model_dump(), **said})
    except ValidationError as error:
        at, what = problems_of(error, kind)[0]
        raise BadRequest(".".join(map(str, at)), what) from error


def schema(own: BaseModel) -> dict[str, dict[str, Json]]:
    """JSON Schema of each rule, its default the task's own."""
    rules, defaults = type(own).model_json_schema()["properties"], own.model_dump(mode="json")
    return {
        name: {**{key: part[key] for key in part if key != "title"}, "default": defaults[name]}
        for name, part in rules.items()
    }
