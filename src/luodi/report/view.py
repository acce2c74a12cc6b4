"""A run folder as the panels see it: read once, changed never."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from luodi.core import records, store
from luodi.core.errors import LuodiError
from luodi.core.evidence import Evidence
from luodi.core.rows import Rows
from luodi.report.answers import Answers
from luodi.report.table import Table, metrics, table_of


@dataclass(frozen=True)
class View:
    """Everything a run folder holds about one run."""

    folder: Path

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        """All evidence, in order."""
        return evidence_of(self.folder)

    @cached_property
    def head(self) -> dict[str, Any]:
        """bundle.json."""
        return store.peek(self.folder)

    @property
    def name(self) -> str:
        return str(self.recipe.get("name") or self.folder.name)

    @cached_property
    def recipe_text(self) -> str:
        """The resolved recipe as it was written, "" if the run has none."""
        path = self.folder / "recipe.yaml"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    @cached_property
    def recipe(self) -> Mapping[str, Any]:
        import yaml

        return yaml.safe_load(self.recipe_text) or {}

    @cached_property
    def limits(self) -> list[dict[str, Any]]:
        """The checked limits, [] while none were stated."""
        path = self.folder / "limits.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """The event stream; a last line torn by a kill is left out."""
        path = self.folder / "events.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    @cached_property
    def table(self) -> Table:
        return table_of(self.evidence)

    @property
    def rehearsal(self) -> bool:
        return any(one.rehearsal for one in self.evidence)

    @cached_property
    def measured(self) -> list[Evidence]:
        """Evidence of steps that left a model."""
        return [one for one in self.evidence if one.measures]

    @cached_property
    def names(self) -> list[str]:
        """Every measure's name, in order of appearance."""
        return list(dict.fromkeys(name for one in self.evidence for name in one.measures))

    @property
    def main(self) -> str | None:
        """The main metric."""
        return next(iter(metrics(self.names)), None)

    @cached_property
    def last(self) -> Evidence | None:
        """The last evidence that kept its answers: what ships."""
        kept = [one for one in self.measured if one.records and (self.folder / "records" / one.records).is_file()]
        return kept[-1] if kept else None

    def answers(self, one: Evidence) -> dict[str, Answers]:
        """Target -> answers behind an evidence."""
        path = self.folder / "records" / one.records
        return read_answers(path, self.head["task"]) if one.records and path.is_file() else {}

    @cached_property
    def final(self) -> dict[str, Answers]:
        """Target -> answers of what ships."""
        return self.answers(self.last) if self.last else {}

    def example(self, identity: str) -> Mapping[str, Any]:
        """A held-out row by its identity, {} where the run kept none."""
        rows, places = self._held_out
        return rows[places[identity]] if rows is not None and identity in places else {}

    @cached_property
    def _held_out(self) -> tuple[Rows | None, dict[str, int]]:
        path = self.folder / "rows" / "test.arrow"
        if not path.is_file():
            return None, {}
        rows = Rows.open(path)
        return rows, {str(identity): place for place, identity in enumerate(rows.ids)}

    @cached_property
    def inputs(self) -> list[str]:
        """The columns that the task reads, [] where its task does not name them."""
        task: Any = next(iter(self.head["task"].values()))
        named = task.get("inputs") if isinstance(task, Mapping) else None
        return list(named) if isinstance(named, Mapping) else []


def evidence_of(folder: Path) -> tuple[Evidence, ...]:
    """The evidence of a run folder or of a bundle's folder."""
    for path in (folder / "bundle" / "evidence" / "evidence.json", folder / "evidence" / "evidence.json"):
        if path.is_file():
            return tuple(Evidence.model_validate(one) for one in json.loads(path.read_text(encoding="utf-8")))
    raise LuodiError(f"{folder} holds no evidence (bundle/evidence/evidence.json); `luodi list runs` shows the runs")


def read_answers(path: Path, task: Mapping[str, Any]) -> dict[str, Answers]:
    """Target -> answers of one records file; labels come from the fitted task."""
    exam = records.read(path)
    found = {}
    for column, value in exam.columns.items():
        target, _, part = column.rpartition(".")
        if part == "value" and f"{target}.truth" in exam.columns:
            truth, chances = exam.columns[f"{target}.truth"], exam.columns.get(f"{target}.probabilities")
            found[target] = Answers(target, exam.ids, value, truth, chances, labels_of(task, target))
    return found


def labels_of(task: Any, target: str) -> tuple[str, ...]:
    """The labels of a target in the order of its probabilities' columns, as the fitted task holds them."""
    for name, fields in _mappings(task):
        inner = next(iter(fields.values()), None)
        if name == target and isinstance(inner, Mapping) and isinstance(inner.get("values"), list | tuple):
            return tuple(map(str, inner["values"]))
    return ()


def _mappings(value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping inside a nested value, with the key it stands under."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(inner, Mapping):
                yield str(name), inner
                yield from _mappings(inner)
