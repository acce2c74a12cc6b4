"""One part of the report: a file each in panels/, found by the catalog, drawn in the order it asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

if TYPE_CHECKING:
    from luodi.report.answers import Answers
    from luodi.report.view import View


class Panel(Protocol):
    """What a panel is: a title, a place, whether this run has anything for it, and its HTML."""

    title: ClassVar[str]
    order: ClassVar[int]

    def wanted(self, view: View) -> bool:
        """Whether the run holds what the panel shows."""
        ...

    def html(self, view: View) -> str:
        """The panel's body; everything that comes from data is escaped."""
        ...


def chart(data: Sequence[Mapping[str, Any]], layout: Mapping[str, Any], says: str, *, height: int = 300) -> str:
    """A plotly figure that the page draws; `says` is its content in words.

    A colour "@name" is the style sheet's variable --name, so that charts follow light and dark. Texts from data go
    through `plain` first, since plotly reads a little HTML.
    """
    figure = json.dumps({"data": list(data), "layout": dict(layout)}, default=_number, allow_nan=False)
    return (
        f"<figure class='chart' role='img' aria-label='{escape(says, quote=True)}'>"
        f"<div class='plot' style='height:{height}px'></div>"
        f"<script type='application/json'>{for_script(figure)}</script></figure>"
    )


def for_script(text: str) -> str:
    """JSON that may stand inside a script element."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def plain(text: object) -> str:
    """Text for a plotly label: plotly reads a few tags, so none are left."""
    return escape(str(text), quote=False)


def floats(values: Any, digits: int = 4) -> list[float | None]:
    """Rounded numbers for a chart; what is not finite becomes a gap."""
    return [round(float(value), digits) if np.isfinite(value) else None for value in np.asarray(values, dtype=float)]


def by_target(found: Mapping[str, Answers], chosen: Callable[[Answers], bool], body: Callable[[Answers], str]) -> str:
    """The body of each chosen target, under the target's name while there are several."""
    shown = [answers for answers in found.values() if chosen(answers)]
    names = [f"<h3 class='target'>{escape(answers.target)}</h3>" if len(found) > 1 else "" for answers in shown]
    return "".join(name + body(answers) for name, answers in zip(names, shown, strict=True))


def chip(text: str, kind: str) -> str:
    """A small labelled mark; `kind` is a verdict: better, worse, same, undecided."""
    return f"<span class='chip {escape(kind, quote=True)}'>{escape(text)}</span>"


def pairs(facts: Mapping[str, Any]) -> str:
    """Names and values as a definition list, nested mappings indented."""
    items = "".join(
        f"<div><dt>{escape(str(name).replace('_', ' '))}</dt><dd>{_value(value)}</dd></div>"
        for name, value in facts.items()
    )
    return f"<dl class='pairs'>{items}</dl>"


def named(thing: Any) -> str:
    """A thing of a recipe on one line: its name and its fields."""
    if not isinstance(thing, Mapping) or len(thing) != 1:
        return str(thing)
    name, fields = next(iter(thing.items()))
    said = ", ".join(f"{key}: {value}" for key, value in fields.items()) if isinstance(fields, Mapping) else str(fields)
    return f"{name} ({said})" if said else str(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return pairs(value) if value else "–"
    if isinstance(value, list | tuple):
        return escape(", ".join(map(str, value))) or "–"
    return escape("–" if value is None or value == "" else str(value))


def _number(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a chart cannot hold {type(value).__name__}")
