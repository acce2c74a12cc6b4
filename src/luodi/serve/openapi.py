"""The OpenAPI document: FastAPI's for the plain routes, and /predict as the task describes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from luodi.serve.body import MOST_BYTES
from luodi.serve.intake import FORM, JSON, MOST_REQUESTS, Intake

if TYPE_CHECKING:
    from fastapi import FastAPI

REFUSALS = {
    400: "The body cannot be parsed.",
    408: "The body did not arrive in time.",
    413: f"The body is larger than {MOST_BYTES // 1_000_000} MB.",
    415: "The content type is not one of those listed.",
    422: "A value does not fit its column.",
    500: "The server failed; its log has the reason under the id.",
    503: "Too many calls wait; the same call may be sent again a little later.",
}


def document(app: FastAPI, intake: Intake, answer: Mapping[str, Any], facts: Mapping[str, str]) -> Callable[[], Any]:
    """What `app.openapi` is replaced with; made once, when first asked for."""
    made: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not made:
            from fastapi.openapi.utils import get_openapi

            made.update(get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes))
            made["paths"] = {"/predict": {"post": _operation(intake, facts)}, **made["paths"]}
            made.setdefault("components", {})["schemas"] = _schemas(intake, answer)
        return made

    return openapi


def _operation(intake: Intake, facts: Mapping[str, str]) -> dict[str, Any]:
    one, many = {"$ref": "#/components/schemas/Request"}, {"$ref": "#/components/schemas/Requests"}
    example = {name: _example(schema) for name, schema in intake.inputs.items() if name in intake.required}
    content: dict[str, Any] = {
        JSON: {
            "schema": {"anyOf": [one, many]},
            "examples": {
                "one": {"summary": "One request", "value": example},
                "many": {"summary": "Several requests in one call", "value": {"requests": [example, example]}},
            },
        }
    }
    if FORM in intake.kinds:
        assert intake.image is not None
        parts = {name: {"type": "string"} for name in intake.inputs}
        parts[intake.image] = {"type": "string", "format": "binary"}
        content[FORM] = {"schema": {"type": "object", "properties": parts, "required": list(parts)}}
    if "image/*" in intake.kinds:
        content["image/*"] = {"schema": {"type": "string", "format": "binary"}}
    refusal = {JSON: {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    return {
        "operationId": "predict",
        "summary": "Answers one request, or several.",
        "description": f"Answered by {facts['form']} of bundle {facts['bundle'][:12]}.",
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {
                "description": "The answer, or the answers in the order of the requests.",
                "content": {JSON: {"schema": {"$ref": "#/components/schemas/Answered"}}},
            },
            **{str(status): {"description": why, "content": refusal} for status, why in REFUSALS.items()},
        },
    }


def _schemas(intake: Intake, answer: Mapping[str, Any]) -> dict[str, Any]:
    text = {"type": "string"}
    may_be_text = {"type": ["string", "null"]}
    requests = {
        "type": "array", "items": {"$ref": "#/components/schemas/Request"}, "minItems": 1, "maxItems": MOST_REQUESTS,
    }  # fmt: skip
    facts = {
        "bundle": {**text, "description": "The bundle's digest."},
        "form": {**text, "description": "The form of the model that answered."},
    }
    ref = {"$ref": "#/components/schemas/Answer"}
    error = {
        "column": {**may_be_text, "description": "The column that is wrong, if it is one column."},
        "message": {**text, "description": "What is wrong."},
        "expected": {**may_be_text, "description": "What is allowed."},
        "index": {"type": "integer", "description": "Which request of a list, from 0."},
        "id": {**text, "description": "Under which the server's log has the reason."},
    }
    return {
        "Request": intake.schema,
        "Requests": _object({"requests": requests}),
        "Answer": dict(answer),
        "Answered": {
            "oneOf": [_object({"answer": ref, **facts}), _object({"answers": {"type": "array", "items": ref}, **facts})]
        },
        "Refusal": _object({"error": {**_object(error), "required": ["column", "message", "expected"]}}),
    }


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object", "properties": dict(properties), "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


def _example(schema: Mapping[str, Any]) -> Any:
    shown = schema.get("examples") or schema.get("enum") or [None]
    return shown[0]
