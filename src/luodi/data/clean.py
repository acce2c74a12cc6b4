"""Rows that should not be learned from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from luodi.core.apply import recorded
from luodi.core.errors import LuodiError
from luodi.core.step import Facts, Step
from luodi.core.thing import ModelConfig, Slot
from luodi.data.cleaning.copies import conflicts, duplicates, held_out, joined, near
from luodi.data.cleaning.doubtful import doubtful
from luodi.data.cleaning.findings import Choice, Findings, named
from luodi.data.cleaning.outliers import outliers
from luodi.data.cleaning.unreadable import empty_cells, unreadable
from luodi.data.cleaning.useless import useless
from luodi.data.columns.fields import fields, input_columns, label_column, labels_of, texts

if TYPE_CHECKING:
    from luodi.core.bundle import Bundle
    from luodi.core.rows import Rows
    from luodi.core.run import Run
    from luodi.core.task import Task

CHECKS = ("missing", "duplicates", "conflicts", "near", "copies", "outliers", "labels")


class Clean(Step):
    """Finds copies, unreadable rows, outliers, likely wrong labels and useless columns, and drops what is certain.

    Each kind of finding is dropped, reported or not looked for. Works on the training rows; held-out rows are never
    touched, unless `on: all` cleans all rows before the split. What was found is written, row by row, to
    `aside/rows.parquet` beside the step's bundle; `keep` puts rows back. Opening the bundle again drops the same rows
    by number: nothing is looked for twice.
    """

    keeps: ClassVar[Literal["answers", "shape", "nothing"]] = "answers"
    mends: ClassVar[bool] = True

    on: Literal["train", "all"] = "train"  # all: every row, before the split
    missing: Choice = "drop"  # rows whose inputs or targets the fields cannot read
    duplicates: Choice = "drop"  # equal inputs and targets as an earlier row
    conflicts: Choice = "report"  # equal inputs, other targets: all of them
    near: Choice = "report"  # pictures and texts nearly the same as an earlier row, with equal targets
    copies: Choice = "report"  # inputs that a held-out row has too, or nearly so (unless `near: off`)
    outliers: Choice = "report"  # numbers far from the others of their column
    outlier_by: Literal["score", "quartiles"] = "score"  # distance from the median in robust deviations, or Tukey's
    outlier_limit: Annotated[float, Field(gt=0)] | None = None  # None: 3.5 deviations, 3 quartile ranges
    labels: Choice = "report"  # likely wrong, by confident learning from out-of-fold probabilities
    target: str = "auto"  # the labels to doubt; auto: the only category target
    by: tuple[Annotated[Any, Slot("steps")], ...] = ()  # steps that train the model which doubts; none: a linear model
    folds: Annotated[int, Field(ge=2)] = 5
    columns: Literal["off", "report", "drop"] = "report"  # inputs that are constant or name rows
    keep: tuple[str, ...] = ()  # identities of rows that stay whatever is found
    drop: tuple[str | int, ...] = ()  # identities or numbers of rows that go whatever is found

    @model_validator(mode="after")
    def _fits(self) -> Clean:
        if both := set(self.keep) & {str(one) for one in self.drop}:
            raise ValueError(f"{sorted(both)[0]} is in `keep` and in `drop`")
        return self

    def facts(self, have: frozenset[str]) -> Facts:
        needs = {"rows"} | ({"split"} if self.on == "train" else set()) | ({"loss"} if self.by else set())
        excludes = ({"split"} if self.on == "all" else set()) | (
            {"fitted"} if self.columns == "drop" or self.by else set()
        )
        return Facts(frozenset(needs), frozenset(), frozenset(), frozenset(excludes))

    def packages(self) -> Mapping[str, str]:
        inner = {name: extra for step in self.by for name, extra in step.packages().items()}
        return inner | ({"sklearn": "data"} if self.labels != "off" and not self.by else {})

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        if self.labels == "drop" and not labels_of(task):
            return "only labels can be doubted, and no target of this task is one"
        if self.columns == "drop" and not fields(task, "inputs"):
            return "this task has no input columns to drop"
        return next((said for step in self.by if (said := step.objection(task, config))), None)

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        assert bundle.data is not None
        rows = bundle.data[self.on]
        found = Findings(rows, frozenset(self.keep))
        every = np.arange(len(rows))
        if self.drop:
            found.add("drop", named(rows, self.drop), every, "drop")
        for name in CHECKS:
            choice: Choice = getattr(self, name)
            if choice != "off":
                places = every if name == "missing" else found.left()
                found.add(name, self._look(name)(bundle, rows.take(places), run), places, choice)
        if not len(found.kept()):
            raise LuodiError(f"clean: of {len(rows)} rows none is left; report first, then drop")
        self._check_others(bundle)
        task, columns = self._columns(bundle.task, rows.take(found.left()))
        splits = {**bundle.data.splits, self.on: rows.take(found.kept())}
        data = recorded(replace(bundle.data, splits=splits), self._again(found), run)
        notes: dict[str, Any] = found.notes(self.on) | {
            "columns": columns,
            "empty_cells": empty_cells(rows),
            "file": found.write(run),
        }
        if columns:
            said = "dropped" if self.columns == "drop" else "reported only"
            notes["told"] += [f"{said}: column {name} ({why})" for name, why in columns.items()]
        return bundle.replace(data=data if len(found.gone) else bundle.data, task=task).noting(**notes)

    def _look(self, name: str) -> Callable[[Bundle, Rows, Run], dict[int, str]]:
        return {
            "missing": lambda bundle, rows, run: unreadable(bundle.task, rows),
            "duplicates": lambda bundle, rows, run: duplicates(rows, *_columns(bundle.task, rows)),
            "conflicts": lambda bundle, rows, run: conflicts(rows, *_columns(bundle.task, rows)),
            "near": lambda bundle, rows, run: near(bundle.task, rows, *_columns(bundle.task, rows)),
            "copies": self._copies,
            "outliers": lambda bundle, rows, run: outliers(bundle.task, rows, self.outlier_by, self.outlier_limit),
            "labels": self._labels,
        }[name]

    def _copies(self, bundle: Bundle, rows: Rows, run: Run) -> dict[int, str]:
        """Training rows that are held out too."""
        assert bundle.data is not None
        others = [held for part, held in bundle.data.splits.items() if part in ("validation", "test") and len(held)]
        if self.on == "all" or not others:
            return {}
        inputs = input_columns(bundle.task, rows)
        return held_out(bundle.task, rows, joined(others), inputs, look_near=self.near != "off")

    def _labels(self, bundle: Bundle, rows: Rows, run: Run) -> dict[int, str]:
        """Labels that models which did not see the row are confident are others."""
        from luodi.data.folding.out_of_fold import out_of_fold

        if self.target == "auto" and len(labels_of(bundle.task)) != 1 and self.labels == "report":
            return {}
        target = label_column(bundle.task, rows, self.target, "clean: target")
        names, shares = out_of_fold(bundle, rows, target, self.by, self.folds, run)
        given = np.asarray([names.index(text) for text in texts(rows, target)], np.int64)
        return {
            row: f"{target} {names[given[row]]} ({shares[row, given[row]]:.1%}) is likely {names[other]} "
            f"({shares[row, other]:.1%})"
            for row, other in doubtful(given, shares)
        }

    def _columns(self, task: Task, rows: Rows) -> tuple[Task, dict[str, str]]:
        """The task without the inputs that teach nothing, if they are to go, and these with the reason."""
        found = useless(task, rows) if self.columns != "off" else {}
        if self.columns != "drop" or not found:
            return task, found
        inputs = {name: field for name, field in fields(task, "inputs").items() if name not in found}
        if not inputs:
            raise LuodiError(
                "clean: every input column is constant or an identifier; nothing would be left to learn from"
            )
        return task.model_copy(update={"inputs": inputs}), found

    def _check_others(self, bundle: Bundle) -> None:
        """Held-out rows are not touched, so a gap in them is said now, not when they are scored."""
        assert bundle.data is not None
        for part, rows in bundle.data.splits.items():
            if self.missing != "off" and part != self.on and (bad := unreadable(bundle.task, rows)):
                first = next(iter(bad.values()))
                raise LuodiError(
                    f"clean: {len(bad)} {part} rows cannot be read ({first}) and held-out rows stay as they are; "
                    "put clean before split with `on: all`, or let the field take such cells"
                )

    def _again(self, found: Findings) -> Clean:
        """The step that drops the same rows by number."""
        off: dict[str, Any] = dict.fromkeys((*CHECKS, "columns"), "off")
        return Clean(on=self.on, drop=tuple(sorted(found.gone)), **off)


def _columns(task: Task, rows: Rows) -> tuple[list[str], list[str]]:
    """Inputs and targets."""
    return input_columns(task, rows), [name for name in fields(task, "targets") if name in rows.columns]
