"""How a measure is named and how its numbers are written: three significant digits, the unit said once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from luodi.core.evidence import Measure, plain

# Measures that every bundle can have: name -> (title, unit, short title). All others are "<target>.<metric>".
COMMON: dict[str, tuple[str, str, str]] = {
    "p50_ms": ("p50 latency", "ms", "p50"),
    "p90_ms": ("p90 latency", "ms", "p90"),
    "p95_ms": ("p95 latency", "ms", "p95"),
    "p99_ms": ("p99 latency", "ms", "p99"),
    "size_mb": ("size on disk", "MB", "size"),
    "memory_mb": ("peak memory", "MB", "memory"),
    "process_mb": ("whole process", "MB", "process"),
    "throughput_per_s": ("throughput", "per s", "per s"),
    "epsilon": ("privacy epsilon", "", "epsilon"),
}


@dataclass(frozen=True)
class Column:
    """One measure as people read it: its name in the evidence, its title and its unit."""

    name: str
    title: str
    unit: str = ""
    short: str = ""  # where lines are narrow

    @property
    def metric(self) -> bool:
        """Whether it is a metric of the task, and not a cost."""
        return "." in self.name

    @property
    def heading(self) -> str:
        return f"{self.title} ({self.unit})" if self.unit else self.title


def column_of(name: str, names: Iterable[str]) -> Column:
    """A measure's column; a metric drops its target while only one target has metrics."""
    if name in COMMON:
        return Column(name, *COMMON[name])
    targets = {other.split(".")[0] for other in names if "." in other}
    title = name.partition(".")[2] if "." in name and len(targets) == 1 else name
    return Column(name, title.replace("_", " "), "", title.replace("_", " "))


def three(value: float) -> str:
    """A number with three significant digits: 0.985, 12.3, 1,230."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("infinite" if value > 0 else "-infinite")
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.2e}"
    exponent = math.floor(math.log10(abs(value)))
    rounded = round(value, 2 - exponent)
    exponent = math.floor(math.log10(abs(rounded)))  # 0.9996 rounds up to 1.00
    return f"{rounded:,.{max(0, 2 - exponent)}f}"


def signed(value: float) -> str:
    """A difference: three significant digits and always a sign."""
    return "0" if value == 0 else f"{'+' if value > 0 else '-'}{three(abs(value))}"


def bounds(measure: Measure) -> str:
    """The interval in brackets, "" for an exact value."""
    if measure.low == measure.high:
        return ""
    return f"[{three(measure.low)}, {three(measure.high)}]"


def share(measure: Measure) -> str:
    """The change as a share of what it was before, "" where there is none to say."""
    if measure.change is None or not math.isfinite(measure.change.value):
        return ""
    before = measure.value - measure.change.value
    return (
        f"{100 * measure.change.value / abs(before):+.0f}%".replace("-0%", "0%").replace("+0%", "0%") if before else ""
    )


def data(value: BaseModel | None) -> Any:
    """A measure or evidence as strict JSON data: what is not finite is a text."""
    return None if value is None else plain(value)


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.42 s, 12 s, 3 min 20 s."""
    if seconds < 10:
        return f"{three(seconds)} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def weight(count: float) -> str:
    """Bytes as people say them: 812 bytes, 1.2 kB, 3.4 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{three(count)} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
