"""What a step changed, in words: gains, losses, and what was not shown either way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luodi.core.evidence import Measure

_NAMES = {
    "p50_ms": "one request", "p95_ms": "slow requests (p95)", "size_mb": "on disk", "memory_mb": "memory",
    "process_mb": "server process", "throughput_per_s": "throughput",
}  # fmt: skip


def told(measures: Mapping[str, Measure], main: str | None, better: Mapping[str, str], touched: float | None,
         kind: str) -> tuple[str, ...]:  # fmt: skip
    """Sentences for the table: quality first, then time, size and memory, then how much of the model was touched."""
    found: list[str] = []
    if main and main in measures:
        found.append(quality(main, measures[main], better))
        found += [
            quality(name, m, better) for name, m in measures.items() if name in better and name != main and _worse(m)
        ][:1]
    for name in ("p50_ms", "size_mb", "memory_mb", "process_mb"):
        if name in measures and measures[name].change is not None:
            found.append(_cost(name, measures[name]))
    if touched is not None and kind == "model":
        part = f"{touched:.0%} of the weights changed"
        found.append(part if touched >= 0.5 else f"only {part}" if touched > 0 else "no weight changed")
    return tuple(text for text in found if text)


def _worse(measure: Measure) -> bool:
    """Shown to be worse, and by enough to be worth a word: a hundredth of its value."""
    return (
        measure.verdict == "worse"
        and measure.change is not None
        and (abs(measure.change.value) >= 0.01 * abs(measure.value))
    )


def quality(name: str, measure: Measure, better: Mapping[str, str]) -> str:
    """One metric in words: its value, or how it changed."""
    short = name.rpartition(".")[2]
    share = better.get(name) == "higher" and -1 <= measure.value <= 1
    value = f"{measure.value:.1%}" if share else f"{measure.value:.4g}"
    if measure.change is None:
        return f"{short} {value}"
    change = measure.change
    unit = (lambda v: f"{v * 100:+.1f}") if share else (lambda v: f"{v:+.3g}")
    points = " points" if share else ""
    size = f"{unit(change.value)}{points} ({unit(change.low)} to {unit(change.high)})"
    if measure.verdict == "same":
        return f"{short} unchanged"
    if measure.verdict == "undecided":
        return f"{short} {size}: no difference shown"
    return f"{short} {size}: {measure.verdict}"


def against(rival: str, name: str, measure: Measure) -> str:
    """What the paired difference to a rival shows, in the metric's own unit."""
    change = measure.change
    assert change is not None
    value, low, high = (f"{one:+.3f}" if abs(measure.value) <= 1 else f"{one:+.3g}" for one in vars(change).values())
    if measure.verdict in ("better", "worse"):
        return f"{name} {value} [{low}, {high}] {measure.verdict} than {rival}"
    return f"{name}: no difference to {rival} ({value} [{low}, {high}])"


def _cost(name: str, measure: Measure) -> str:
    change = measure.change
    assert change is not None
    before = measure.value - change.value
    what = _NAMES[name]
    if measure.verdict in ("same", "undecided") or before <= 0:
        return "" if name != "p50_ms" else f"{what} as fast as before" if measure.verdict == "same" else ""
    ratio = measure.value / before
    if abs(ratio - 1) < 0.02:
        return ""
    if name == "p50_ms":
        said = f"{what} {1 / ratio:.3g}x faster" if ratio < 1 else f"{what} {ratio:.3g}x SLOWER"
        return f"{said} ({measure.value:.3g} against {before:.3g} ms)"
    if ratio < 1:
        return f"{1 / ratio:.3g}x smaller {what}" if name == "size_mb" else f"{1 - ratio:.0%} less {what}"
    return f"{ratio:.3g}x LARGER {what}" if name == "size_mb" else f"{ratio - 1:.0%} MORE {what}"


def rows_told(notes: Mapping[str, Any]) -> tuple[str, ...]:
    """A data step in words: rows by split, what it found, and what it says itself (`told`)."""
    rows = notes.get("rows")
    said = [", ".join(f"{count:,} {name}" for name, count in rows.items())] if isinstance(rows, Mapping) else []
    leakage, near = notes.get("leakage"), notes.get("near")
    if isinstance(leakage, Mapping) and leakage.get("words"):
        said.append(str(leakage["words"]))
    if isinstance(near, Mapping) and near.get("rows"):
        said.append(str(near["words"]))
    return (*said, *map(str, notes.get("told", ())))
