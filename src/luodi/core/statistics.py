"""Intervals: bootstraps over rows, and over timed calls. Seeds are fixed, so the same data give the same interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from luodi.core.evidence import Change, Measure, Verdict

ROUNDING = 1e-5  # relative changes below this are rounding, not an effect

Score = Callable[[np.ndarray], Mapping[str, float]]  # row indices -> metrics


def _bounds(values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def bootstrap(score: Score, before: Score | None, count: int, resamples: int,
              better: Mapping[str, str]) -> dict[str, Measure]:  # fmt: skip
    """Every metric with its 95% percentile interval over resampled rows; with `before`, scored on the same rows, also
    the paired change."""
    dice = np.random.Generator(np.random.PCG64(0))
    every = np.arange(count)
    value = score(every)
    old = before(every) if before else {}
    drawn: dict[str, list[float]] = {name: [] for name in value}
    paired: dict[str, list[float]] = {name: [] for name in value if name in old}
    for _ in range(resamples):
        rows = dice.integers(0, count, count)
        new = score(rows)
        past = before(rows) if before else {}
        for name in value:
            drawn[name].append(new[name])
            if name in paired:
                paired[name].append(new[name] - past[name])
    found = {}
    for name in value:
        direction = "higher" if better.get(name) == "higher" else "lower"
        share = direction == "higher" and 0 <= value[name] <= 1 + ROUNDING
        low, high = _bounds(np.asarray(drawn[name]))
        if share and high - low < ROUNDING and count:
            low, high = max(low - _unseen(count), 0.0), min(high + _unseen(count), 1.0)
        change = verdict = None
        if name in paired:
            change = Change(value=value[name] - old[name], **_ends(_bounds(np.asarray(paired[name]))))
            verdict = judge(change, direction, value[name])
            if share and change.low == change.high == 0 and count:  # the verdict is of these rows, the bounds of all
                change = Change(value=0.0, low=-_unseen(count), high=_unseen(count))
        found[name] = Measure(value=value[name], low=low, high=high, count=count, change=change, verdict=verdict)
    return found


def _ends(bounds: tuple[float, float]) -> dict[str, float]:
    return {"low": bounds[0], "high": bounds[1]}


def _unseen(count: int) -> float:
    """The largest share of cases that `count` rows can all miss, 95% two-sided (Clopper and Pearson 1934).

    A bootstrap of rows that are all alike has no width, though 36 right of 36 do not show 100%."""
    return 1 - 0.025 ** (1 / count)


def judge(change: Change, better: Literal["higher", "lower"], scale: float = 0.0) -> Verdict:
    """A verdict only when the interval lies on one side of zero; "same" when nothing changed but rounding: another
    runtime adds in another order, which moves a loss by 1e-7 of itself. `scale` is the value that changed."""
    if max(abs(change.low), abs(change.high)) <= ROUNDING * abs(scale):
        return "same"
    if change.low > 0:
        return "better" if better == "higher" else "worse"
    if change.high < 0:
        return "worse" if better == "higher" else "better"
    return "undecided"


def lost(change: Change, better: str | None) -> Change:
    """A change of a metric as a loss: positive is worse. 0 - x, not -x: nothing lost must not read as -0."""
    if better != "higher":
        return change
    return Change(value=0 - change.value, low=0 - change.high, high=0 - change.low)


def quantile(times: np.ndarray, share: float, before: np.ndarray | None = None) -> Measure:
    """A quantile of times with its 95% interval (order statistics); with `before` (interleaved, pair by pair) also the
    change, from a bootstrap over blocks of calls, since neighbours in time share what disturbs them."""
    value, count = float(np.quantile(times, share)), len(times)
    ordered = np.sort(times)
    spread = 1.96 * np.sqrt(count * share * (1 - share))
    low = float(ordered[max(int(np.floor(count * share - spread)), 0)])
    high = float(ordered[min(int(np.ceil(count * share + spread)), count - 1)])
    change = None
    if before is not None:
        dice = np.random.Generator(np.random.PCG64(0))
        block = max(count // 50, 1)
        starts = np.arange(0, count - block + 1, block)
        drawn = []
        for _ in range(400):
            rows = (dice.choice(starts, len(starts))[:, None] + np.arange(block)).ravel()
            drawn.append(np.quantile(times[rows], share) - np.quantile(before[rows], share))
        change_low, change_high = _bounds(np.asarray(drawn))
        change = Change(value=value - float(np.quantile(before, share)), low=change_low, high=change_high)
    return Measure(value=value, low=low, high=high, count=count, change=change,
                   verdict=judge(change, "lower") if change else None)  # fmt: skip


def exact(value: float, before: float | None = None) -> Measure:
    """A value that needs no interval: bytes on disk."""
    change = None
    if before is not None:
        change = Change(value=value - before, low=value - before, high=value - before)
    return Measure(value=value, low=value, high=value, count=1, change=change,
                   verdict=judge(change, "lower") if change else None)  # fmt: skip


def repeated(values: list[float], before: Measure | None = None) -> Measure:
    """The median of a few repeats, with their range in place of an interval; a change is judged by the two ranges, and
    not at all if either is of one value."""
    value, low, high = float(np.median(values)), min(values), max(values)
    change = None
    if before is not None:
        change = Change(value=value - before.value, low=low - before.high, high=high - before.low)
    alone = before is not None and min(len(values), before.count) < 2
    verdict = "undecided" if alone else judge(change, "lower") if change else None
    return Measure(value=value, low=low, high=high, count=len(values), change=change, verdict=verdict)
