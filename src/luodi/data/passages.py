"""Long texts in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from luodi.core.errors import LuodiError
from luodi.core.step import Facts, Step
from luodi.core.thing import ModelConfig

if TYPE_CHECKING:
    from luodi.core.bundle import Bundle
    from luodi.core.rows import Rows
    from luodi.core.run import Run
    from luodi.core.task import Task

# Where a piece may end, if it must not end anywhere: after it comes the next.
ENDS = {
    "line": re.compile(r"\n"),
    "sentence": re.compile(r"\n|(?<=[。！？!?…])|(?<=[.!?])\s"),
    "paragraph": re.compile(r"\n\s*\n"),
}


class Passages(Step):
    """Cuts long texts into passages: one row becomes several, which keep its other columns.

    A passage has at most `characters` characters and ends where `at` says, if there is such a place in it; the next one
    begins `overlap` characters before its end. Comes before the split, which keeps the passages of one text together by
    `group`: `column` of the task's only text is cut unless another is named.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"rows"})
    excludes: ClassVar[frozenset[str]] = frozenset({"split"})
    keeps: ClassVar[Literal["answers", "shape", "nothing"]] = "answers"

    characters: Annotated[int, Field(ge=2)] = 500
    at: Literal["any", "line", "sentence", "paragraph"] = "sentence"
    overlap: Annotated[int, Field(ge=0)] = 0  # characters
    least: Annotated[int, Field(ge=1)] = 1  # shorter passages are left out
    column: str = "auto"

    @model_validator(mode="after")
    def _moves_on(self) -> Passages:
        if self.overlap >= self.characters or self.least > self.characters:
            raise ValueError("`overlap` is below `characters`, `least` not above it")
        return self

    def facts(self, have: frozenset[str]) -> Facts:
        return Facts(self.needs, frozenset(), frozenset(), self.excludes)

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        if self.column == "auto" and len(_texts(task)) != 1:
            return f"which column is cut? name it in `column` (texts: {', '.join(_texts(task)) or 'none'})"
        return None

    def foresee_rows(self, splits: Mapping[str, Rows], task: Task) -> Mapping[str, Rows]:
        rows = splits.get("all")
        return {**splits, "all": self._cut(rows, self._column(rows, task))} if rows is not None else splits

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        assert bundle.data is not None
        rows = bundle.data["all"]
        column = self._column(rows, bundle.task)
        cut = self._cut(rows, column)
        if not len(cut):
            raise LuodiError(f"passages: no text of {column!r} has {self.least} characters")
        data = replace(bundle.data, splits={**bundle.data.splits, "all": cut})
        told = f"{len(rows):,} texts -> {len(cut):,} passages of at most {self.characters} characters"
        notes: dict[str, Any] = {"part": "all", "rows_in": len(rows), "rows_out": len(cut), "told": [told]}
        return bundle.replace(data=data).noting(**notes)

    def _column(self, rows: Rows, task: Task) -> str:
        column = self.column if self.column != "auto" else _texts(task)[0]
        if column not in rows.columns:
            raise LuodiError(f"passages: the data have no column {column!r}; they have {', '.join(rows.columns)}")
        return column

    def _cut(self, rows: Rows, column: str) -> Rows:
        import pyarrow as pa

        from luodi.core.rows import Rows

        texts: list[str] = []
        parents: list[int] = []
        ids: list[str] = []
        for place, cell in enumerate(rows.cells(column)):
            if not isinstance(cell, str):
                raise LuodiError(f"passages: row {place} of {column!r} is no text but {type(cell).__name__}")
            for number, piece in enumerate(self.pieces(cell)):
                texts.append(piece)
                parents.append(place)
                ids.append(f"{rows.ids[place]}-{number}")
        whole = rows.take(np.asarray(parents, np.int64)).table
        whole = whole.set_column(whole.column_names.index(column), column, pa.array(texts, pa.string()))
        return Rows(whole, np.asarray(ids, object))

    def pieces(self, text: str) -> Iterator[str]:
        """The passages of one text, in order."""
        start = 0
        while start < len(text):
            end = min(start + self.characters, len(text))
            if end < len(text) and self.at != "any":
                ends = [found.end() for found in ENDS[self.at].finditer(text, start + self.overlap + 1, end)]
                end = max((one for one in ends if one > start + self.overlap), default=end)
            piece = text[start:end]
            if len(piece.strip()) >= self.least:
                yield piece
            if end == len(text):
                return
            start = end - self.overlap


def _texts(task: Task) -> list[str]:
    fields = vars(task).get("inputs") or {}
    return [name for name, field in fields.items() if field.kind == "text"]
