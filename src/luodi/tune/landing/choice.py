"""Which of the measured chains is taken, and what to say when none is within the limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from luodi.core import limits as core_limits
from luodi.core import records, statistics
from luodi.core.evidence import Evidence, Measure
from luodi.core.limits import COSTS, Limits, Verdict
from luodi.core.task import Exam, Task
from luodi.tune.landing.trials import Trial

FASTER = 0.02  # relative: a smaller difference of two medians is not worth a choice
RESAMPLES = 200
STATES = ("met", "undecided", "not measured", "missed")  # the last of these that a limit has is the chain's


def judged(trial: Trial, limits: Limits) -> list[Verdict]:
    """Every limit against what was seen of a chain."""
    one = Evidence(step=None, name=trial.name, number=0, form=trial.form, measures=trial.figures)
    return core_limits.judge(limits, one, trial.losses)


def state_of(trial: Trial, limits: Limits) -> str:
    """`met`, `undecided`, `not measured`, `missed`, or `failed`."""
    if trial.why:
        return "failed"
    return max((one.state for one in judged(trial, limits)), key=STATES.index, default="met")


@dataclass(frozen=True)
class Chooser:
    """What is better than what: first quality, then time, then size; what is not shown to differ does not count."""

    task: Task
    limits: Limits
    exams: Path  # folder of the answers to the validation rows

    @property
    def metric(self) -> str | None:
        """The quality that matters: the task's first metric."""
        return next(iter(self.task.metrics()), None)

    def order(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those within the limits, else those that may be, best first."""
        states = {trial.key: state_of(trial, self.limits) for trial in trials}
        for wanted in ("met", "undecided"):
            found = [trial for trial in trials if states[trial.key] == wanted]
            if found:
                return self._best_first(found)
        return []

    def _best_first(self, trials: Sequence[Trial]) -> list[Trial]:
        """Again and again, of all that are not shown to be worse than the best in quality, the cheapest."""
        left, found = sorted(trials, key=self.loss), []
        while left:
            alike = [trial for trial in left if not self.worse(trial, left[0])]
            fastest = min(cost(trial, "p50_ms") for trial in alike)
            quick = [trial for trial in alike if cost(trial, "p50_ms") <= fastest * (1 + FASTER)]
            best = min(quick, key=lambda trial: (cost(trial, "size_mb"), cost(trial, "p50_ms")))
            left.remove(best)
            found.append(best)
        return found

    def loss(self, trial: Trial) -> float:
        """How much of the quality that matters was lost; what was not measured is 0 where nothing can be measured."""
        return trial.losses[self.metric].value if self.metric in trial.losses else 0.0

    def worse(self, trial: Trial, other: Trial) -> bool:
        """Whether a chain is shown to answer worse than another on the same rows."""
        files = [self.exams / f"{one.key}.parquet" for one in (trial, other)]
        name = self.metric
        if trial is other or name is None or not all(file.is_file() for file in files):
            return False
        new, old = records.shared(*map(records.read, files))

        def score(exam: Exam, rows: np.ndarray) -> dict[str, float]:
            return {name: self.task.score(exam.take(rows))[name]}

        ways = {name: dict(self.task.metrics())[name]}
        found = statistics.bootstrap(partial(score, new), partial(score, old), len(new), RESAMPLES, ways)
        return found[name].verdict == "worse"

    def excess(self, trial: Trial) -> float:
        """By how much of a limit a chain misses the one that it misses most; infinite where it is not known."""
        found = [_excess(one) for one in judged(trial, self.limits)]
        return float("inf") if trial.why or None in found else max((one for one in found if one is not None), default=0)

    def nearest(self, trials: Sequence[Trial]) -> Trial:
        """Of chains that all miss a limit, the one that misses it least."""
        return min(trials, key=lambda trial: (self.excess(trial), cost(trial, "p50_ms")))

    def short(self, trials: Sequence[Trial]) -> list[dict[str, Any]]:
        """Of each limit: the best that was seen of it, and the best beside all other limits; with the chains' names.

        A limit that no chain keeps is out of reach; else the limits exclude each other.
        """
        found: list[dict[str, Any]] = []
        made = [(trial, {one.limit: one for one in judged(trial, self.limits)}) for trial in trials if not trial.why]
        for name in self.names:
            seen = [(each[name].value, trial, each) for trial, each in made if each[name].value is not None]
            beside = [
                one for one in seen if all(other.state == "met" for key, other in one[2].items() if key != name)
            ]  # fmt: skip
            best = min(seen, key=lambda one: one[0], default=None)
            alone = min(beside, key=lambda one: one[0], default=None)
            allowed = next(each[name].allowed for _, each in made)
            found.append({
                "limit": name, "allowed": allowed,
                "best": best[0] if best else None, "by": best[1].name if best else None,
                "beside": alone[0] if alone else None, "beside_by": alone[1].name if alone else None,
                "reachable": any(each[name].state == "met" for _, each in made),
            })  # fmt: skip
        return found

    @property
    def names(self) -> list[str]:
        """The limits by name."""
        return [name for name in COSTS if getattr(self.limits, name) is not None] + [
            f"drop.{metric}" for metric in self.limits.drop
        ]


def cost(trial: Trial, name: str) -> float:
    """A figure of a chain; infinite where it was not measured."""
    found: Measure | None = trial.figures.get(name)
    return found.value if found is not None else float("inf")


def _excess(one: Verdict) -> float | None:
    if one.value is None:
        return None
    return max(one.value - one.allowed, 0.0) / (one.allowed or 1.0)


def words(short: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why nothing is within the limits: a sentence for each limit that cannot be kept, and what relaxing one buys."""
    said = []
    for one in short:
        if not one["reachable"] and one["best"] is not None:
            said.append(
                f"{one['limit']} {one['allowed']:g} is out of reach: the least was {one['best']:.4g} ({one['by']})"
            )
        elif not one["reachable"]:
            said.append(f"{one['limit']} was not measured of any chain")
    if not said:
        said.append("each limit can be kept, but not all of them together")
    eased = [one for one in short if one["beside"] is not None and one["beside"] > one["allowed"]]
    return said + [f"with {one['limit']} {one['beside']:.4g} all limits are kept ({one['beside_by']})" for one in eased]
