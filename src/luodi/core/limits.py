"""The limits of a recipe, and whether a measured bundle meets them: met, missed or undecided, with the distance."""

from __future__ import annotations

from math import isfinite
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from luodi.core.errors import LuodiError, nearest
from luodi.core.evidence import Change, Evidence, Measure
from luodi.core.thing import Thing

State = Literal["met", "missed", "undecided", "not measured"]
TIMES = ("p50_ms", "p95_ms", "p99_ms")
COSTS = (*TIMES, "size_mb", "memory_mb", "process_mb")


class Limits(Thing):
    """What the last bundle of a recipe must keep to; what is not named is free."""

    p50_ms: float | None = Field(None, gt=0)  # median latency of one request, served form
    p95_ms: float | None = Field(None, gt=0)
    p99_ms: float | None = Field(None, gt=0)  # measured only from 1,000 calls on
    size_mb: float | None = Field(None, gt=0)  # the serving form and its assets on disk
    memory_mb: float | None = Field(None, gt=0)  # what opening and answering adds to a process
    process_mb: float | None = Field(None, gt=0)  # the whole server process
    drop: dict[str, float] = {}  # metric -> most that may be lost against the first bundle that had a model


class Verdict(BaseModel):
    """One limit against what was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
    limit: str
    allowed: float
    value: float | None
    low: float | None = None
    high: float | None = None
    state: State
    words: str


def full_name(metric: str, known: list[str]) -> str:
    """The metric's full name: it may go without its target while only one target has it."""
    if metric in known:
        return metric
    found = [name for name in known if name.endswith("." + metric)]
    if len(found) == 1:
        return found[0]
    if found:
        raise LuodiError(f"limits: {metric!r} is a metric of several targets; say which: {', '.join(found)}")
    raise LuodiError(f"limits: no metric is named {metric!r}; {nearest(metric, known)}")


def judge(limits: Limits, last: Evidence, losses: dict[str, Change]) -> list[Verdict]:
    """Every limit against the last evidence; `losses` holds, by full metric name, how much was lost since the first
    bundle with a model (positive: worse), paired on the same rows."""
    verdicts = []
    for name in COSTS:
        allowed = getattr(limits, name)
        if allowed is not None:
            verdicts.append(_one(name, allowed, last.measures.get(name)))
    for metric, allowed in limits.drop.items():
        loss = losses.get(full_name(metric, list(losses)) if losses else metric)
        count = max((m.count for key, m in last.measures.items() if key.endswith(metric)), default=0)
        found = Measure(value=loss.value, low=loss.low, high=loss.high, count=count) if loss else None
        verdicts.append(_one(f"drop.{metric}", allowed, found))
    return verdicts


def _one(name: str, allowed: float, found: Measure | None) -> Verdict:
    if found is None or not all(map(isfinite, (found.value, found.low, found.high))):
        gave = "was not measured" if found is None else f"gave no number ({found.value:g})"
        why = f"{name} {gave}, so the limit of {allowed:g} is not shown to be met"
        return Verdict(limit=name, allowed=allowed, value=None, state="not measured", words=why)
    state: State = "met" if found.high <= allowed else "missed" if found.low > allowed else "undecided"
    distance = found.value - allowed
    words = f"{name} is {found.value:.4g} ({found.low:.4g} to {found.high:.4g}), the limit {allowed:g}: "
    if state == "undecided":
        words += f"undecided; {_needed(found, allowed)}"
    else:
        share = f" ({abs(distance) / allowed:.0%} of the limit)" if allowed else ""
        words += f"{'missed' if state == 'missed' else 'met'} by {abs(distance):.3g}{share}"
    return Verdict(
        limit=name, allowed=allowed, value=found.value, low=found.low, high=found.high, state=state, words=words
    )


def _needed(found: Measure, allowed: float) -> str:
    """How many rows or calls would settle it: an interval narrows with the square root of the count."""
    half, distance = (found.high - found.low) / 2, abs(found.value - allowed)
    what = "rows or calls"
    if distance <= half / 100:
        return f"the value lies on the limit: no number of {what} will settle it"
    return (
        f"about {int(found.count * (half / distance) ** 2) + 1:,} {what} would settle it (there were {found.count:,})"
    )
