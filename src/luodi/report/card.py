"""card.md: what a bundle is, what it learned from, what was done to it and what was measured. Facts only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import luodi
from luodi.core import catalog
from luodi.core.bundle import Bundle
from luodi.core.evidence import Evidence
from luodi.core.thing import make
from luodi.report.markdown import cell, code, grid
from luodi.report.table import metrics, table_of
from luodi.report.units import COMMON, duration, three

SHOWN = 12  # columns of a wide table that are described one by one


def card(bundle: Bundle, name: str) -> str:
    """The model card of a bundle as Markdown, from the bundle alone."""
    parts = [
        f"# {cell(name)}\n\n{_what(bundle)}\n",
        _interface(bundle),
        _data(bundle),
        _steps(bundle),
        "## What was measured\n\n" + table_of(bundle.evidence).markdown() if bundle.evidence else "",
        _agreed(bundle),
        _forms(bundle),
        _unknown(bundle),
        _serving(bundle),
    ]
    return "\n".join(part for part in parts if part)


def _what(bundle: Bundle) -> str:
    kind = catalog.name_of(type(bundle.task))
    model = catalog.name_of(type(bundle.config)) if bundle.config is not None else "chain of " + ", ".join(bundle.parts)
    steps = " -> ".join(one.name for one in bundle.evidence) or "nothing yet"
    rehearsal = ""
    if any(one.rehearsal for one in bundle.evidence):
        rehearsal = "\n\n**A rehearsal: a few rows and updates. No number here says how good anything is.**"
    return (
        f"A {cell(model)} for a {cell(kind)} task, made by luodi {luodi.__version__}: {cell(steps)}. "
        f"It answers with its {cell(bundle.serving)} form.{rehearsal}"
    )


def _interface(bundle: Bundle) -> str:
    schema = bundle.task.wire_schema()
    lines = ["## What goes in, what comes out\n"]
    for title, side in (("Input", "request"), ("Answer", "answer")):
        fields: Mapping[str, Any] = schema[side].get("properties", {})
        rows = [[name, _kind(field)] for name, field in list(fields.items())[:SHOWN]]
        if len(fields) > SHOWN:
            rows.append([f"... {len(fields) - SHOWN} more", ""])
        lines.append(grid([title.lower(), "what it is"], rows))
    return "\n".join(lines)


def _kind(field: Mapping[str, Any]) -> str:
    """A JSON Schema in a few words."""
    if field.get("description"):
        return str(field["description"])
    if "enum" in field:
        return "one of " + ", ".join(map(str, field["enum"]))
    if "properties" in field:
        inner: Mapping[str, Any] = field["properties"]
        if len(inner) > 1 and all(one.get("type") == "number" for one in inner.values()):
            return "a number for each of " + ", ".join(inner)
        return "; ".join(f"{name}: {_kind(one)}" for name, one in inner.items())
    kind = field.get("type", "any value")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _data(bundle: Bundle) -> str:
    origin = bundle.data.origin if bundle.data is not None else None
    facts: list[tuple[str, str]] = []
    if origin is not None:
        facts += [("source", code(_short(origin.source))), ("licence", cell(_terms(origin.source)))]
        facts.append(("fingerprint of its rows", code(origin.fingerprint)))
    for one in bundle.evidence:
        rows = one.notes.get("rows")
        if isinstance(rows, Mapping) and one.step is not None:
            facts.append(("rows", ", ".join(f"{count:,} {part}" for part, count in rows.items())))
            facts.append(("rule", code(_short(one.step))))
    scored = [one for one in bundle.evidence if one.rows]
    if scored:
        facts.append(("fingerprint of the rows it was scored on", code(scored[-1].rows)))
    return "## What it learned from\n\n" + "".join(f"- {name}: {value}\n" for name, value in facts) if facts else ""


def _terms(source: Any) -> str:
    """The licence of the rows; a source of the user's own is not run for it."""
    name = source if isinstance(source, str) else next(iter(source))
    known: Any = None if ":" in name else make("sources", source)
    return (known.licence() if known else "") or "not known to luodi"


def _steps(bundle: Bundle) -> str:
    if not bundle.evidence:
        return ""
    rows = [[str(one.number), one.name, _fields(one), duration(one.seconds), _touched(one)] for one in bundle.evidence]
    packages = {name: version for edit in bundle.edits for name, version in edit.packages.items()}
    text = "## How it was made\n\n" + grid(["step", "name", "fields", "time", "weights touched"], rows)
    if packages:
        text += "\nMade with " + ", ".join(f"{name} {version}" for name, version in packages.items()) + ".\n"
    return text


def _agreed(bundle: Bundle) -> str:
    """The terms of the weights that it began from: they bind whoever is given the bundle."""
    told = dict.fromkeys(one.notes["terms"] for one in bundle.evidence if one.notes.get("terms"))
    return "## Terms of its weights\n\n" + "\n\n".join(map(cell, told)) + "\n" if told else ""


def _fields(one: Evidence) -> str:
    fields: Any = next(iter(one.step.values())) if one.step else None
    return ", ".join(f"{key}: {_short(value)}" for key, value in fields.items()) if isinstance(fields, Mapping) else "-"


def _touched(one: Evidence) -> str:
    return "-" if one.touched is None else f"{three(100 * one.touched)}%"


def _forms(bundle: Bundle) -> str:
    if not bundle.forms:
        return ""
    rows = [
        [name, form.kind, form.arithmetic, three(form.drift), three(form.tolerance)]
        for name, form in bundle.forms.items()
    ]
    heads = ["form", "runtime", "computes in", "distance from torch", "allowed from its own golden answers"]
    return "## Its forms\n\n" + grid(heads, rows) + "\nDistances are relative, on the golden requests in this folder.\n"


def _unknown(bundle: Bundle) -> str:
    """Where the measurements end: what no number above covers."""
    last = next((one for one in reversed(bundle.evidence) if one.measures), None)
    said = []
    if last is None:
        said.append("Nothing was measured.")
    else:
        names = list(last.measures)
        missing = [COMMON[name][0] for name in COMMON if name not in names and name not in ("p90_ms",)]
        if missing:
            said.append(f"Not measured: {', '.join(missing)}.")
        if metrics(names):
            count = last.measures[metrics(names)[0]].count
            said.append(
                f"Quality is that of {count:,} held-out rows of the same source; rows from elsewhere: not measured."
            )
            said.append("Quality by group of rows, and under attack: not measured.")
        else:
            said.append("Quality was not measured: there were no held-out rows.")
        machine = ", ".join(f"{key} {value}" for key, value in last.machine.items() if key != "busy")
        said.append(f"Latency and memory are of one machine ({machine or 'not described'}); others: not measured.")
        if last.machine.get("busy"):
            said.append("The machine was busy while it was measured.")
    return "## Limits of what is known\n\n" + "".join(f"- {cell(line)}\n" for line in said)


def _serving(bundle: Bundle) -> str:
    example = ""
    if bundle.golden is not None and bundle.golden.requests:
        request = json.dumps(bundle.golden.requests[0], ensure_ascii=False)
        if len(request) <= 400:
            body = request.replace("'", "'\\''")
            example = f"curl -H 'Content-Type: application/json' -d '{body}' http://127.0.0.1:8000/predict\n"
    commands = f"luodi serve .\n{example}luodi predict . INPUT\n"
    return f"## How to use it\n\nIn the folder of this file:\n\n```sh\n{commands}```\n"


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and len(value) == 1:
        name, inner = next(iter(value.items()))
        return f"{name} {json.dumps(inner, ensure_ascii=False)}" if inner else str(name)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
