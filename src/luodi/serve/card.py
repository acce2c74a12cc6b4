"""What a server says about its bundle: the facts that its page shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import luodi
from luodi.core.thing import dump
from luodi.serve.openai.completions import writer_of

if TYPE_CHECKING:
    from luodi.core.bundle import Bundle
    from luodi.core.evidence import Evidence
    from luodi.core.task import Task


def card(bundle: Bundle, *, name: str, digest: str, form: str, threads: int) -> dict[str, Any]:
    """Name, digest and form; inputs and targets with their schemas; which text is written, if one is; what the last
    evidence of this form measured."""
    evidence = last_evidence(bundle, form)
    writer = writer_of(bundle.task, name, digest)
    return {
        "name": name,
        "digest": digest,
        "form": form,
        "threads": threads,
        "luodi": luodi.__version__,
        "task": next(iter(dump(bundle.task))),
        "inputs": _columns(bundle.task.wire_schema()["request"], _kinds(bundle.task.inputs_specs())),
        "targets": _columns(bundle.task.wire_schema()["answer"], _kinds(bundle.task.outputs_specs())),
        "writes": writer and {"column": writer.given, "answer": writer.column, "messages": writer.talks},
        "steps": [one.name for one in bundle.evidence if one.step is not None],
        "metrics": bundle.task.metrics(),
        "measures": _measures(evidence, bundle.task) if evidence else [],
        "rehearsal": bool(evidence and evidence.rehearsal),
        "machine": evidence.machine if evidence else {},
    }


def last_evidence(bundle: Bundle, form: str) -> Evidence | None:
    """The newest evidence about this form, else None: another form's figures would not be this one's."""
    return next((one for one in reversed(bundle.evidence) if one.form == form and one.measures), None)


def _measures(evidence: Evidence, task: Task) -> list[dict[str, Any]]:
    """Every measure with its interval, the task's own metrics first, its main one before all."""
    order = [*task.metrics(), *evidence.measures]
    return [
        {"name": name, **evidence.measures[name].model_dump(include={"value", "low", "high", "count"})}
        for name in dict.fromkeys(order)
        if name in evidence.measures
    ]


def _kinds(specs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {"kind": spec.kind, "shape": list(spec.shape)} for name, spec in specs.items()}


def _columns(schema: Mapping[str, Any], kinds: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Columns with schema, kind and shape; a column that becomes several arrays takes its first one's."""
    return [
        {"name": name, "schema": part, **next((kind for key, kind in kinds.items() if key.startswith(name)), {})}
        for name, part in schema.get("properties", {}).items()
    ]
