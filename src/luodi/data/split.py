"""Training, validation and test rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from luodi.core.errors import LuodiError, nearest
from luodi.core.step import Step
from luodi.core.thing import dump
from luodi.data.reading.aside import aside_of
from luodi.data.reading.leaks import leaks

if TYPE_CHECKING:
    from luodi.core.bundle import Bundle
    from luodi.core.rows import Rows
    from luodi.core.run import Run
    from luodi.core.task import Task

PARTS = ("test", "validation", "train")  # the order in which rows are handed out; training takes the rest


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


@dataclass
class _Group:
    """Rows of one identity."""

    rank: str  # decides the part
    order: str  # decides the place inside the part: by rank, the strata would not be mixed at the ends
    rows: list[int]
    stratum: str


def assign(names: Sequence[str], strata: Sequence[str], shares: Mapping[str, float], seed: int) -> dict[str, list[int]]:
    """Part -> row numbers in hash order; `shares` are handed out in their order, "train" is the rest."""
    groups = _groups(names, strata, seed)
    by_stratum: dict[str, list[_Group]] = defaultdict(list)
    for group in sorted(groups, key=lambda group: group.rank):
        by_stratum[group.stratum].append(group)
    total = len(names)
    taken: dict[str, list[_Group]] = {part: [] for part in (*shares, "train")}
    left = {stratum: by_stratum[stratum] for stratum in sorted(by_stratum)}
    for part, share in shares.items():
        sizes = {stratum: sum(len(group.rows) for group in members) for stratum, members in left.items()}
        whole = {stratum: sum(len(group.rows) for group in by_stratum[stratum]) for stratum in left}
        quota = shared_out(round_half_up(total * share), {s: whole[s] * share for s in left}, sizes)
        debt = 0  # rows that a group too large for its stratum's quota gave too few or too many
        for stratum, members in left.items():
            chosen, left[stratum] = _fill(members, quota[stratum] + debt)
            debt += quota[stratum] - sum(len(group.rows) for group in chosen)
            taken[part] += chosen
    for members in left.values():
        taken["train"] += members
    return {
        part: [row for group in sorted(found, key=lambda group: group.order) for row in group.rows]
        for part, found in taken.items()
    }


def _groups(names: Sequence[str], strata: Sequence[str], seed: int) -> list[_Group]:
    members: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        members[name].append(row)
    groups = []
    for name, rows in members.items():
        counts = Counter(strata[row] for row in rows)
        common = min(counts, key=lambda stratum: (-counts[stratum], stratum))  # rows of one name may disagree
        digest = sha256(f"{seed}\0{name}".encode()).hexdigest()
        groups.append(_Group(digest[:32], digest[32:], rows, common))
    return groups


def _fill(groups: list[_Group], quota: int) -> tuple[list[_Group], list[_Group]]:
    """The first groups that fit into the quota, and the others; one too large is taken if that comes nearer."""
    chosen, others, missing = [], [], quota
    for group in groups:
        fits = len(group.rows) <= missing
        (chosen if fits else others).append(group)
        missing -= len(group.rows) if fits else 0
    if missing > 0 and others:
        smallest = min(others, key=lambda group: len(group.rows))
        if len(smallest.rows) - missing < missing and len(others) > 1:
            others.remove(smallest)
            chosen.append(smallest)
    return chosen, others


def round_half_up(value: float) -> int:
    """The nearest whole number; 0.1 * 45 is 4.5 and gives 5."""
    return int(np.floor(value + 0.5 + 1e-9))


def shared_out(total: int, wanted: Mapping[str, float], most: Mapping[str, int]) -> dict[str, int]:
    """Whole numbers near `wanted` that sum to `total` (largest remainder); one row of each stratum is left over."""
    rooms = ({name: max(most[name] - 1, 0) for name in wanted}, most)  # strata of one row give it only in need
    given = {name: min(int(np.floor(value + 1e-9)), rooms[0][name]) for name, value in wanted.items()}
    missing = min(total, sum(most.values())) - sum(given.values())
    for room in rooms:
        while missing > 0 and (open_ := [name for name in wanted if given[name] < room[name]]):
            open_.sort(key=lambda name: (given[name] - wanted[name], name))
            for name in open_[:missing]:
                given[name] += 1
                missing -= 1
    return given
