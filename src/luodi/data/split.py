"""Training, validation and test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from luodi.core.errors import LuodiError, nearest
from luodi.core.step import Step
from luodi.core.thing import dump
from luodi.data.reading.aside import aside_of
from luodi.data.splitting.assign import assign
from luodi.data.splitting.leaks import leaks

if TYPE_CHECKING:
    from luodi.core.bundle import Bundle
    from luodi.core.rows import Rows
    from luodi.core.run import Run
    from luodi.core.task import Task


class Split(Step):
    """Divides the rows into training, validation and test rows by a hash of what each row is.

    A row is known by its `id` column, else by the hash of its columns. Inside each stratum rows are sorted by
    hash(identity, seed) and cut by rank: counts are exact, the recipe's seed moves nothing, rows with one identity
    stay together, and a new row moves about one other. The order inside each part is random and fixed: its
    first k rows are a fair sample. Raises LuodiError when a part would be empty.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"rows"})
    gives: ClassVar[frozenset[str]] = frozenset({"split"})
    excludes: ClassVar[frozenset[str]] = frozenset({"split"})
    keeps: ClassVar[Literal["answers", "shape", "nothing"]] = "answers"

    validation: float = Field(0.1, ge=0, lt=1)  # share of the rows
    test: float = Field(0.2, ge=0, lt=1)  # share of the rows
    stratify: str | None = "auto"  # a column whose values are shared out evenly; auto: the only category target
    id: str | None = None  # a column that names what a row is about; rows of one name stay together
    seed: int = 0  # its own, so that the recipe's seed leaves the held-out rows as they are
    leakage: Literal["report", "refuse"] = "report"  # what to do about equal inputs in two parts

    @model_validator(mode="after")
    def _leaves_rows(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} and test {self.test} leave no rows to train on")
        return self

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        assert bundle.data is not None
        if "all" not in bundle.data.splits:
            raise LuodiError("the rows are already split; a recipe splits once")
        rows = bundle.data["all"]
        names = self._identities(rows)
        column = self._stratum(bundle.task, rows)
        strata = [str(value) for value in rows.column(column)] if column else [""] * len(rows)
        parts = assign(names, strata, {"test": self.test, "validation": self.validation}, self.seed)
        self._whole(parts, len(rows), column)
        splits = {part: rows.take(parts[part]) for part in ("train", "validation", "test")}
        found = leaks(splits, _inputs(bundle.task, rows, self.id))
        if found["rows"] and self.leakage == "refuse":
            raise LuodiError(f"{found['words']}; name a column in `id` that keeps such rows together")
        notes: dict[str, Any] = {
            "rows": {part: len(part_rows) for part, part_rows in splits.items()},
            "stratified_by": column,
        }
        done = bundle.replace(data=replace(bundle.data, splits=splits), facts=bundle.facts | {"split"})
        if aside := aside_of(rows.table):
            notes["kept_aside"] = aside
        return done.noting(**notes, leakage=found)

    def _identities(self, rows: Rows) -> list[str]:
        if self.id is None:
            return [str(name) for name in rows.ids]
        if self.id not in rows.columns:
            raise LuodiError(f"id: no column {self.id!r}; {nearest(self.id, rows.columns)}")
        names = rows.column(self.id)
        if empty := sum(name is None for name in names):
            raise LuodiError(f"id: column {self.id!r} is empty in {empty} of {len(rows)} rows")
        return [str(name) for name in names]

    def _stratum(self, task: Task, rows: Rows) -> str | None:
        """The column to stratify by, None for none."""
        if self.stratify == "auto":
            labels = [name for name, kind in _fields(task, "targets").items() if kind == "category"]
            return labels[0] if len(labels) == 1 and labels[0] in rows.columns else None
        if self.stratify is not None and self.stratify not in rows.columns:
            raise LuodiError(f"stratify: no column {self.stratify!r}; {nearest(self.stratify, rows.columns)}")
        return self.stratify

    def _whole(self, parts: Mapping[str, Sequence[int]], count: int, column: str | None) -> None:
        shares = {"validation": self.validation, "test": self.test, "train": 1 - self.validation - self.test}
        for part, share in shares.items():
            if share > 0 and not len(parts[part]):
                by = f" stratified by {column}" if column else ""
                raise LuodiError(
                    f"{count} rows{by} leave no {part} rows at a share of {share:.3g}; "
                    f"get more rows, or set other shares in `split: {{validation: ..., test: ...}}`"
                )


def _fields(task: Task, side: str) -> dict[str, str]:
    """Column -> kind of the task's inputs or targets; {} for a task without such fields."""
    written = next(iter(dump(task).values())).get(side) or {}
    return {column: next(iter(field)) for column, field in written.items()}


def _inputs(task: Task, rows: Rows, identity: str | None) -> list[str]:
    targets = _fields(task, "targets")
    named = [column for column in _fields(task, "inputs") if column in rows.columns]
    return named or [column for column in rows.columns if column not in targets and column != identity]
