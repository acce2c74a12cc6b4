"""Rare labels made one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from luodi.core.apply import recorded
from luodi.core.errors import LuodiError
from luodi.core.step import Step
from luodi.core.thing import ModelConfig
from luodi.data.columns.fields import label_column, labels_of, texts
from luodi.data.columns.rewritten import rewritten

if TYPE_CHECKING:
    from luodi.core.bundle import Bundle
    from luodi.core.run import Run
    from luodi.core.task import Task


class MergeLabels(Step):
    """Makes labels with few rows one label, in all rows and before the split.

    Every label with fewer than `fewest` rows, or just those named in `labels`, becomes `into`. Rows keep their
    identity. A rehearsal, which has few rows of every label, leaves the two most frequent ones. Raises LuodiError if
    only one label would be left.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"rows"})
    excludes: ClassVar[frozenset[str]] = frozenset({"split"})
    keeps: ClassVar[Literal["answers", "shape", "nothing"]] = "answers"

    fewest: Annotated[int, Field(ge=2)] | None = None  # rows of a label that stays
    labels: tuple[str, ...] = ()
    into: str = "other"
    target: str = "auto"  # the column of labels; auto: the only category target

    @model_validator(mode="after")
    def _one_way(self) -> MergeLabels:
        if (self.fewest is None) == (not self.labels):
            raise ValueError("give `fewest` (rows of a label that stays) or `labels` (that are merged)")
        return self

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        if self.target == "auto" and not labels_of(task):
            return "only labels can be merged, and no target of this task is one (name a column in `target`)"
        return None

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        assert bundle.data is not None
        rows = bundle.data["all"]
        column = label_column(bundle.task, rows, self.target, "merge_labels: target")
        before = texts(rows, column)
        counts = Counter(before)
        merged = self._merged(counts, run.rehearse)
        after = [self.into if label in merged else label for label in before]
        if len(set(after)) < 2:
            raise LuodiError(f"merge_labels: only one label would be left of {dict(counts.most_common(8))}")
        splits = {**bundle.data.splits, "all": rewritten(rows, column, after) if merged else rows}
        again = MergeLabels(labels=tuple(merged), into=self.into, target=column) if merged else self
        data = recorded(replace(bundle.data, splits=splits), again, run)
        told = f"{len(merged)} labels with {sum(counts[label] for label in merged):,} rows are now {self.into!r}"
        told = told if merged else "no label is rare"
        notes: dict[str, Any] = {"labels": {"in": dict(counts), "out": dict(Counter(after))}, "told": [told]}
        return bundle.replace(data=data if merged else bundle.data).noting(**notes)

    def _merged(self, counts: Counter[str], rehearsed: bool) -> list[str]:
        if self.labels:
            return [label for label in self.labels if label in counts]
        assert self.fewest is not None
        second = sorted(counts.values())[-2] if len(counts) > 1 else 0
        fewest = min(self.fewest, second) if rehearsed else self.fewest
        return sorted(label for label, count in counts.items() if count < fewest)
