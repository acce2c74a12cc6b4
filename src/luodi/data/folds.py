"""Cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, model_validator

from luodi.core import records
from luodi.core.check import foreseen
from luodi.core.errors import LuodiError, nearest
from luodi.core.run import ASIDE
from luodi.core.step import Facts, Step
from luodi.core.thing import ModelConfig, Slot
from luodi.data.balancing.rows import MADE
from luodi.data.columns.fields import labels_of, texts
from luodi.data.folding.folds import Fold, folds_of
from luodi.data.folding.members import Asked, asked, facts_of, in_turn, joined, summary

if TYPE_CHECKING:
    from pathlib import Path

    from luodi.core.bundle import Bundle
    from luodi.core.outlook import Forecast, Outlook
    from luodi.core.rows import Rows
    from luodi.core.run import Run
    from luodi.core.task import Task

REHEARSED = 2  # folds of a rehearsal


class Folds(Step):
    """Runs its steps on folds of the training rows, reports the spread of every metric, then runs them on all rows.

    k-fold, repeated, and nested: with `choices`, inner folds choose the best of them, and outer folds say what such a
    choice is worth. Held-out rows take no part; the validation rows are what early stopping looks at, in every fold.
    Rows of one identity share a fold. A run that was killed goes on after the last whole fold. Rivals that have folds
    too are compared on every row that was asked about.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"split"})
    excludes: ClassVar[frozenset[str]] = frozenset({"fitted", "model"})

    count: Annotated[int, Field(ge=2)] = 5
    repeat: Annotated[int, Field(ge=1)] = 1  # times, each with other folds
    steps: tuple[Annotated[Any, Slot("steps")], ...] = ()  # what is validated: train, and what belongs to it
    choices: dict[str, tuple[Annotated[Any, Slot("steps")], ...]] = {}  # name -> steps that follow `steps`
    nested: Annotated[int, Field(ge=2)] | None = None  # inner folds that choose between `choices`
    group: str | None = None  # a column that rows share: rows of one group share a fold
    seed: int = 0  # of the folds; the recipe's seed does not move them

    @model_validator(mode="after")
    def _whole(self) -> Folds:
        if not self.steps and not self.choices:
            raise ValueError("give `steps`: what is run on every fold, as in steps: [train]")
        if (self.nested is None) != (len(self.choices) < 2):
            raise ValueError("`nested` chooses between two or more `choices`: give both, or neither")
        return self

    def facts(self, have: frozenset[str]) -> Facts:
        found = [facts_of(steps, have | self.needs) for steps in self._candidates().values()]
        gives = frozenset.intersection(*(one.gives for one in found))
        needs, ends, excludes = (
            frozenset().union(*(getattr(one, name) for one in found)) for name in ("needs", "ends", "excludes")
        )
        return Facts(self.needs | needs, gives, ends - gives, self.excludes | (excludes - self.needs))

    def packages(self) -> Mapping[str, str]:
        return {
            n: extra for steps in self._candidates().values() for one in steps for n, extra in one.packages().items()
        }

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        every = (one for steps in self._candidates().values() for one in steps)
        return next((said for one in every if (said := one.objection(task, config))), None)

    def foresee(self, task: Task, config: ModelConfig | None, cache: Path) -> tuple[Task, ModelConfig | None] | None:
        return foreseen(next(iter(self._candidates().values())), task, config, cache)

    def forecast(self, outlook: Outlook) -> Forecast | None:
        """As often as the steps are run; a fold's steps see (count - 1) / count of the rows."""
        from luodi.core.outlook import Forecast

        found = [[one.forecast(outlook) for one in steps] for steps in self._candidates().values()]
        known = [[cost for cost in costs if cost is not None] for costs in found]
        if not any(known):
            return None
        once = sum(sum(cost.seconds for cost in costs) for costs in known) / len(known)
        inner = 1 + (len(known) * (self.nested - 1) if self.nested else 0)
        last = 1 + (len(known) * (self.nested - 1) if self.nested else 0)
        times = self.repeat * (self.count - 1) * inner + last
        return Forecast(once * times, max(cost.memory_mb for costs in known for cost in costs))

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        assert bundle.data is not None
        rows = bundle.data["train"]
        if any(str(name).startswith(MADE) for name in rows.ids):
            raise LuodiError(
                "folds: rows that `balance` made up would sit in other folds than those they were made of; "
                "put balance into the `steps` of folds"
            )
        count, repeat = (min(self.count, REHEARSED), 1) if run.rehearse else (self.count, self.repeat)
        every: list[Asked] = []
        chosen: list[str] = []
        for again in range(repeat):
            for number, fold in enumerate(self._folds(bundle.task, rows, count, self.seed + again)):
                name = self._best(bundle, rows.take(fold.learned), run.at("inner", again, number))
                inside = run.at("fold", again, number, name)
                every.append(asked(bundle, rows, self._candidates()[name], fold, inside))
                chosen.append(name)
                run.log("progress", {"done": len(every), "total": count * repeat, "what": "folds"})
        name = self._best(bundle, rows, run.at("inner"))
        done, notes = in_turn(bundle, self._candidates()[name], run.at("whole"))
        found: dict[str, Any] = {"count": count, "repeat": repeat, "metrics": summary([one.scores for one in every])}
        records.write(joined(every[:count], done.task), run.out / ASIDE / records.FOLDS)
        if self.choices:
            found |= {"nested": self.nested, "chosen": chosen, "chosen_last": name}
        return done.noting(**{**notes, "folds": found, "told": self._told(found, bundle.task, notes)})

    def _candidates(self) -> dict[str, tuple[Step, ...]]:
        return {name: (*self.steps, *more) for name, more in self.choices.items()} or {"steps": self.steps}

    def _folds(self, task: Task, rows: Rows, count: int, seed: int) -> list[Fold]:
        names = [str(name) for name in rows.ids]
        if self.group is not None:
            if self.group not in rows.columns:
                raise LuodiError(f"folds: group: no column {self.group!r}; {nearest(self.group, rows.columns)}")
            names = texts(rows, self.group)
        labels = [name for name in labels_of(task) if name in rows.columns]
        strata = texts(rows, labels[0]) if len(labels) == 1 else [""] * len(rows)
        return list(folds_of(names, strata, count, seed))

    def _best(self, bundle: Bundle, rows: Rows, run: Run) -> str:
        """The choice with the best mean of the task's main metric over inner folds of these rows."""
        candidates = self._candidates()
        if self.nested is None:
            return next(iter(candidates))
        metric, way = next(iter(bundle.task.metrics().items()))
        means: dict[str, float] = {}
        for name, steps in candidates.items():
            folds = enumerate(self._folds(bundle.task, rows, self.nested, self.seed))
            scores = [asked(bundle, rows, steps, fold, run.at(number, name)).scores for number, fold in folds]
            means[name] = summary(scores)[metric]["mean"]
        return (max if way == "higher" else min)(means, key=lambda name: means[name])

    def _told(self, found: Mapping[str, Any], task: Task, notes: Mapping[str, Any]) -> Sequence[str]:
        metric, way = next(iter(task.metrics().items()))
        one = found["metrics"][metric]
        share = way == "higher" and one["low"] >= 0 and one["high"] <= 1
        mean, off, low, high = (
            f"{one[key]:.1%}" if share else f"{one[key]:.4g}" for key in ("mean", "deviation", "low", "high")
        )
        times = f"{found['repeat']} times " if found["repeat"] > 1 else ""
        choice = f", {found['chosen_last']} chosen" if "chosen_last" in found else ""
        short = metric.rpartition(".")[2]
        said = f"{times}{found['count']} folds: {short} {mean}, deviation {off} ({low} to {high}){choice}"
        return [said, *notes.get("told", ())]
