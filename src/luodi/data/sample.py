"""Fewer rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from luodi.core.errors import LuodiError
from luodi.core.step import Facts, Step
from luodi.core.thing import ModelConfig
from luodi.data.columns.fields import label_column, labels_of, texts
from luodi.data.splitting.assign import round_half_up, shared_out

if TYPE_CHECKING:
    from luodi.core.bundle import Bundle
    from luodi.core.rows import Rows
    from luodi.core.run import Run
    from luodi.core.task import Task


class Sample(Step):
    """Takes some of the training rows: at random, equally many of each label, or each label in its share.

    Drawn without putting back, the order of the rows kept. Held-out rows are not touched; `on: all` draws from all rows
    before the split. `uniform` without a count takes as many of each label as the rarest has.
    """

    keeps: ClassVar[Literal["answers", "shape", "nothing"]] = "answers"

    how: Literal["random", "uniform", "stratified"] = "random"
    count: Annotated[int, Field(ge=1)] | None = None  # rows
    share: Annotated[float, Field(gt=0, le=1)] | None = None  # of the rows
    target: str = "auto"  # the column of labels; auto: the only category target
    on: Literal["train", "all"] = "train"  # all: every row, before the split

    @model_validator(mode="after")
    def _one_size(self) -> Sample:
        if self.count is not None and self.share is not None:
            raise ValueError("give `count` or `share`, not both")
        if self.count is None and self.share is None and self.how != "uniform":
            raise ValueError("give `count` (rows) or `share` (of the rows)")
        return self

    def facts(self, have: frozenset[str]) -> Facts:
        whole = self.on == "all"
        return Facts(frozenset({"rows"} if whole else {"rows", "split"}), frozenset(), frozenset(),
                     frozenset({"split"} if whole else set()))  # fmt: skip

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        if self.how != "random" and self.target == "auto" and not labels_of(task):
            return f"{self.how} is by label, and no target of this task is one (name a column in `target`)"
        return None

    def foresee_rows(self, splits: Mapping[str, Rows], task: Task) -> Mapping[str, Rows]:
        rows = splits.get(self.on)
        if rows is None or (self.count is None and self.share is None):
            return splits
        count = self.count if self.count is not None else round_half_up(len(rows) * (self.share or 1.0))
        return {**splits, self.on: rows.take(np.arange(min(count, len(rows))))}

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        assert bundle.data is not None
        rows = bundle.data[self.on]
        count = self.count if self.count is not None else round_half_up(len(rows) * (self.share or 1.0))
        if run.rehearse:  # on a few rows, whatever the recipe will take of all
            count = min(count, len(rows))
        if not 1 <= count <= len(rows):
            raise LuodiError(f"sample: {count} of {len(rows)} rows cannot be taken; set another `count` or `share`")
        column = None if self.how == "random" else label_column(bundle.task, rows, self.target, "sample: target")
        labels = texts(rows, column) if column else [""] * len(rows)
        chosen = self._chosen(labels, self._quota(labels, count), run)
        data = replace(bundle.data, splits={**bundle.data.splits, self.on: rows.take(chosen)})
        name = "training rows" if self.on == "train" else "rows"
        notes: dict[str, Any] = {"part": self.on, "rows_in": len(rows), "rows_out": len(chosen)}
        said = f"{len(rows):,} -> {len(chosen):,} {name}, {self.how}{f' by {column}' if column else ''}"
        if column:
            notes["labels"] = {"in": dict(Counter(labels)), "out": dict(Counter(labels[row] for row in chosen))}
        return bundle.replace(data=data).noting(**notes, told=[said])

    def _quota(self, labels: list[str], count: int) -> dict[str, int]:
        """Label -> rows."""
        sizes = dict(sorted(Counter(labels).items()))
        if self.how != "uniform":
            return shared_out(count, {label: count * size / len(labels) for label, size in sizes.items()}, sizes)
        if self.count is None and self.share is None:
            return dict.fromkeys(sizes, min(sizes.values()))
        wanted = {label: count // len(sizes) + (at < count % len(sizes)) for at, label in enumerate(sizes)}
        if short := [label for label in sizes if sizes[label] < wanted[label]]:
            raise LuodiError(
                f"sample: label {short[0]!r} has {sizes[short[0]]} rows, an equal part of {count} is "
                f"{wanted[short[0]]}; at most {min(sizes.values()) * len(sizes)} rows can be taken equally"
            )
        return wanted

    def _chosen(self, labels: list[str], quota: dict[str, int], run: Run) -> np.ndarray:
        """Row numbers, ascending."""
        places: dict[str, list[int]] = {label: [] for label in quota}
        for row, label in enumerate(labels):
            places[label].append(row)
        drawn = [run.dice("rows", label).permutation(places[label])[: quota[label]] for label in quota]
        return np.sort(np.concatenate(drawn)).astype(np.int64)
