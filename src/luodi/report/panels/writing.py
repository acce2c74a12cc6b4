"""Texts that were written from held-out rows, beside the true ones."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import ClassVar

import numpy as np

from luodi.core import records
from luodi.report.view import View

MOST = 40  # rows shown
PART = ".written"  # the end of a column that holds what was written; another search's has its name after it


class Writing:
    """What it wrote from held-out rows, beside the true texts: the first rows of their random order."""

    title: ClassVar[str] = "What it wrote"
    order: ClassVar[int] = 78

    def wanted(self, view: View) -> bool:
        return any(name.endswith(PART) for name in _columns(view))

    def html(self, view: View) -> str:
        columns = _columns(view)
        target = next(name.removesuffix(PART) for name in columns if name.endswith(PART))
        searches = {name.partition(PART)[2].strip("_"): columns[name] for name in columns if PART in name}
        written = np.flatnonzero(columns[f"{target}.exact_match"][:, 1])  # of the other rows there is only the loss
        shown = [int(row) for row in written[:MOST]]
        headings = [*view.inputs, f"true {target}", *(name or "greedy" for name in searches)]
        head = "".join(f"<th scope='col'>{escape(heading)}</th>" for heading in headings)
        body = "".join(_row(view, columns, target, searches, row) for row in shown)
        return (
            f"<p class='note'>{len(shown)} of {len(written):,} rows; what is right word for word is bold.</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )


def _columns(view: View) -> Mapping[str, np.ndarray]:
    """The columns of what ships, with its rows' identities."""
    if view.last is None:
        return {}
    exam = records.read(view.folder / "records" / view.last.records)
    return {"id": exam.ids, **exam.columns}


def _row(
    view: View, columns: Mapping[str, np.ndarray], target: str, searches: Mapping[str, np.ndarray], row: int
) -> str:
    example, truth = view.example(str(columns["id"][row])), str(columns[f"{target}.truth"][row])
    given = [escape(str(example.get(name, ""))) for name in view.inputs]
    said = [str(column[row]) for column in searches.values()]
    marked = [f"<b>{escape(text)}</b>" if text == truth else escape(text) for text in said]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in (*given, escape(truth), *marked)) + "</tr>"
