"""Training, validation and test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from luodi.core.apply import recorded
from luodi.core.errors import LuodiError, nearest
from luodi.core.step import Step
from luodi.data.columns.fields import input_columns, labels_of
from luodi.data.likeness.pairs import NONE, groups
from luodi.data.likeness.rows import first_of, near_pairs, prints
from luodi.data.reading.aside import aside_of
from luodi.data.splitting.assign import assign
from luodi.data.splitting.leaks import leaks, near_leaks
from luodi.data.splitting.order import by_time, moments_of

if TYPE_CHECKING:
    from luodi.core.bundle import Bundle
    from luodi.core.rows import Rows
    from luodi.core.run import Run
    from luodi.core.task import Task


class Split(Step):
    """Divides the rows into training, validation and test rows by a hash of what each row is, or by time.

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
    group: str | None = None  # a column that rows share (patient, shop, author): rows of one group stay together
    time: str | None = None  # a column of moments: the latest rows are the test rows, those before them validation
    near: Literal["off", "report", "together", "refuse"] = "report"  # pictures and texts that are nearly the same
    seed: int = 0  # its own, so that the recipe's seed leaves the held-out rows as they are
    leakage: Literal["report", "refuse"] = "report"  # what to do about equal inputs in two parts

    @model_validator(mode="after")
    def _leaves_rows(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} and test {self.test} leave no rows to train on")
        if self.time is not None and (self.group is not None or self.near == "together"):
            raise ValueError("rows cannot both stay together and be divided by time; leave `time`, or the other")
        if self.time is not None and self.stratify not in ("auto", None):
            raise ValueError("a split by time has no strata: leave `stratify` out")
        return self

    def foresee_rows(self, splits: Mapping[str, Rows], task: Task) -> Mapping[str, Rows]:
        if (rows := splits.get("all")) is None:
            return splits
        test, validation = (round(len(rows) * share) for share in (self.test, self.validation))
        cuts = {"test": (0, test), "validation": (test, test + validation), "train": (test + validation, len(rows))}
        return {part: rows.take(np.arange(*cut)) for part, cut in cuts.items()}

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        assert bundle.data is not None
        if "all" not in bundle.data.splits:
            raise LuodiError("the rows are already split; a recipe splits once")
        rows = bundle.data["all"]
        inputs = input_columns(bundle.task, rows, self.id, self.group, self.time)
        alone = np.asarray(first_of(prints(rows, inputs)))
        pairs = near_pairs(bundle.task, rows, inputs, alone) if self.near != "off" else None
        column = self._stratum(bundle.task, rows)
        parts = self._parts(rows, column, alone, pairs if pairs is not None and self.near == "together" else NONE)
        self._whole(parts, len(rows), column)
        splits = {part: rows.take(parts[part]) for part in ("train", "validation", "test")}
        found: dict[str, Any] = {"leakage": leaks(splits, inputs)}
        if pairs is not None:
            found["near"] = near_leaks({part: parts[part] for part in splits}, alone, pairs)
        self._refuse(found)
        notes: dict[str, Any] = {"rows": {part: len(held) for part, held in splits.items()}, "stratified_by": column}
        if aside := aside_of(rows.table):
            notes["kept_aside"] = aside
        # What was only looked for is not looked for again whenever the bundle is opened.
        again = self if self.near == "together" else self.model_copy(update={"near": "off"})
        data = recorded(replace(bundle.data, splits=splits), again, run)
        done = bundle.replace(data=data, facts=bundle.facts | {"split"})
        return done.noting(**notes, **found)

    def _refuse(self, found: Mapping[str, Any]) -> None:
        if found["leakage"]["rows"] and self.leakage == "refuse":
            raise LuodiError(f"{found['leakage']['words']}; name a column in `id` that keeps such rows together")
        if self.near == "refuse" and "near" in found and found["near"]["rows"]:
            raise LuodiError(f"{found['near']['words']}; `near: together` keeps such rows on one side")

    def _parts(self, rows: Rows, column: str | None, alone: np.ndarray, near: np.ndarray) -> dict[str, list[int]]:
        """Part -> row numbers."""
        shares = {"test": self.test, "validation": self.validation}
        names = self._names(rows, self.id) if self.id else [str(name) for name in rows.ids]
        if self.time is not None:
            self._known(rows, "time", self.time)
            return by_time(moments_of(rows.column(self.time), self.time), names, shares, self.seed)
        if self.group is not None or self.near == "together":
            names = self._joined(rows, names, alone, near)
        strata = [str(value) for value in rows.column(column)] if column else [""] * len(rows)
        return assign(names, strata, shares, self.seed)

    def _joined(self, rows: Rows, names: list[str], alone: np.ndarray, near: np.ndarray) -> list[str]:
        """One name for rows that belong together by any of: identity, group, equal or nearly equal inputs."""
        count = np.arange(len(rows))
        links = [np.stack([first_of(names), count], axis=1), near]
        if self.near == "together":
            links.append(np.stack([alone, count], axis=1))
        if self.group is not None:
            links.append(np.stack([first_of(self._names(rows, self.group, "group")), count], axis=1))
        roots = groups(len(rows), np.concatenate(links))
        # Named by its smallest identity: the order of the rows does not matter, and new rows move few old ones.
        named: dict[int, str] = {}
        for root, name in zip(roots.tolist(), names, strict=True):
            named[root] = min(named.get(root, name), name)
        return [named[root] for root in roots.tolist()]

    def _names(self, rows: Rows, column: str, setting: str = "id") -> list[str]:
        self._known(rows, setting, column)
        names = rows.column(column)
        if empty := sum(name is None for name in names):
            raise LuodiError(f"{setting}: column {column!r} is empty in {empty} of {len(rows)} rows")
        return [str(name) for name in names]

    def _known(self, rows: Rows, setting: str, column: str) -> None:
        if column not in rows.columns:
            raise LuodiError(f"{setting}: no column {column!r}; {nearest(column, rows.columns)}")

    def _stratum(self, task: Task, rows: Rows) -> str | None:
        """The column to stratify by, None for none."""
        if self.time is not None:
            return None
        if self.stratify == "auto":
            labels = labels_of(task)
            return labels[0] if len(labels) == 1 and labels[0] in rows.columns else None
        if self.stratify is not None:
            self._known(rows, "stratify", self.stratify)
        return self.stratify

    def _whole(self, parts: Mapping[str, Sequence[int]], count: int, column: str | None) -> None:
        shares = {"validation": self.validation, "test": self.test, "train": 1 - self.validation - self.test}
        other = self.time or self.group
        for part, share in shares.items():
            if share > 0 and not len(parts[part]):
                by = f" stratified by {column}" if column else f" by {other}" if other else ""
                raise LuodiError(
                    f"{count} rows{by} leave no {part} rows at a share of {share:.3g}; "
                    f"get more rows, or set other shares in `split: {{validation: ..., test: ...}}`"
                )
