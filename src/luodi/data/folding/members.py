"""Models that learn from some of the training rows and are asked about the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from math import inf, isfinite
from typing import Any

import numpy as np

from luodi.core import atomic, records
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.source import Data
from luodi.core.step import Facts, Step
from luodi.core.task import Exam, Task
from luodi.core.thing import dump
from luodi.data.columns.fields import fields, kind
from luodi.data.folding.folds import Fold

Noted = tuple[Bundle, dict[str, Any]]


def facts_of(steps: Sequence[Step], have: frozenset[str]) -> Facts:
    """What steps one after the other need, give, end and exclude, taken as one step."""
    needs: set[str] = set()
    gives: set[str] = set()
    ends: set[str] = set()
    excludes: set[str] = set()
    now = have
    for step in steps:
        one = step.facts(now)
        needs |= one.needs - gives
        excludes |= one.excludes - ends
        gives = (gives - one.ends) | one.gives
        ends = (ends | one.ends) - one.gives
        now = (now - one.ends) | one.gives
    return Facts(frozenset(needs), frozenset(gives), frozenset(ends), frozenset(excludes))


def in_turn(bundle: Bundle, steps: Sequence[Step], run: Run) -> Noted:
    """The bundle after the steps, each in a scope of its own, and what they reported."""
    notes: dict[str, Any] = {}
    for number, step in enumerate(steps, 1):
        inside = run.at(number)
        inside.out.mkdir(parents=True, exist_ok=True)
        bundle = apply(step, bundle, inside, number)
        notes |= {**bundle.notes, "told": [*notes.get("told", ()), *bundle.notes.get("told", ())]}
    return bundle, notes


def member(bundle: Bundle, rows: Rows, steps: Sequence[Step], fold: Fold, run: Run) -> Bundle:
    """A fresh start on the fold's rows. The validation rows stay: what is decided automatically looks at them.

    What it logs is left out: the one stream of events tells of the bundle that goes on.
    """
    assert bundle.data is not None
    others = {part: held for part, held in bundle.data.splits.items() if part == "validation"}
    data = Data({"train": rows.take(fold.learned), **others})
    blank = bundle.blank()
    fresh = replace(blank, data=data, facts=blank.facts | {"rows", "split"}, evidence=(), notes={})
    return in_turn(fresh, steps, replace(run, log=_unheard))[0]


@dataclass(frozen=True)
class Asked:
    """What a member answered on rows that it did not learn from, its scores, and its labels in order of the outputs."""

    exam: Exam
    scores: Mapping[str, float]
    labels: Mapping[str, list[str]]  # target -> labels


def asked(bundle: Bundle, rows: Rows, steps: Sequence[Step], fold: Fold, run: Run) -> Asked:
    """A member trained on its fold and asked about the rest; found again after a kill."""
    path = run.out / f"exam-{_identity(bundle, rows, steps, fold, run)}.parquet"
    note = path.with_suffix(".json")
    if not note.is_file():
        trained = member(bundle, rows, steps, fold, run)
        exam = trained.task.examine(trained.predictor(), rows.take(fold.asked), inf)
        records.write(exam, path)
        targets = fields(trained.task, "targets").items()
        labels = {name: list(vars(field)["values"]) for name, field in targets if kind(field) == "category"}
        scores = {name: value for name, value in trained.task.score(exam).items() if isfinite(value)}
        atomic.write_json(note, {"scores": scores, "labels": labels})
    said = atomic.read_json(note)
    return Asked(records.read(path), said["scores"], said["labels"])


def joined(found: Sequence[Asked], task: Task) -> Exam:
    """The exams of all folds as one; probabilities stand in the order of this task's labels, 0 for those that a fold
    did not know."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in found[0].exam.columns}
    for one in found:
        for name, values in one.exam.columns.items():
            target, _, part = name.rpartition(".")
            if part == "probabilities" and target in one.labels:
                known = list(vars(fields(task, "targets")[target])["values"])
                whole = np.zeros((len(values), len(known)), values.dtype)
                whole[:, [known.index(label) for label in one.labels[target]]] = values
                values = whole
            columns[name].append(values)
    ids = np.concatenate([np.asarray(one.exam.ids, object) for one in found])
    return Exam(ids, {name: np.concatenate(parts) for name, parts in columns.items()})


def _identity(bundle: Bundle, rows: Rows, steps: Sequence[Step], fold: Fold, run: Run) -> str:
    config = dump(bundle.config) if bundle.config is not None else None
    whole = [dump(bundle.task), config, [dump(step) for step in steps], rows.fingerprint, fold.asked.tolist()]
    about = [run.seed, list(run.scope), run.device, run.threads, run.rehearse]
    return sha256(json.dumps([whole, about], sort_keys=True).encode()).hexdigest()[:16]


def summary(scores: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Metric -> mean, deviation (n - 1), smallest and largest over members, and every value; NaN counts nowhere."""
    found: dict[str, dict[str, Any]] = {}
    for name in {name: None for one in scores for name in one}:
        values = [one[name] for one in scores if name in one]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        ends = {"low": min(values), "high": max(values)}
        found[name] = {"mean": float(np.mean(values)), "deviation": spread, **ends, "values": values}
    return found


def _unheard(event: str, facts: Mapping[str, Any]) -> None:
    """What a member logs."""
