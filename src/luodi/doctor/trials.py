"""Changes that may help, each tried for a few seconds against the recipe as it is, in turn."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from luodi.core import device
from luodi.core.errors import LuodiError

if TYPE_CHECKING:
    from luodi.doctor.diagnosis import Diagnosis
    from luodi.doctor.probe import Patient

ROUNDS = 3  # pairs of probes, in alternating order
WORTH = 1.1  # gain from which a change is advised


@dataclass(frozen=True)
class Trial:
    """A change, in the words of a recipe, and how many times as many examples a second went through."""

    change: str
    gain: float | None  # None: it could not be tried
    low: float | None = None
    high: float | None = None
    note: str = ""


def trials(patient: Patient, found: Diagnosis, seconds: float) -> list[Trial]:
    """Every change that could touch this bottleneck, the best first."""
    done = [_try(patient, changed, change, note, seconds) for change, changed, note in _changes(patient, found)]
    return sorted(done, key=lambda one: -(one.gain or 0.0))


def _changes(patient: Patient, found: Diagnosis) -> list[tuple[str, dict[str, Any], str]]:
    """(in the words of a recipe, fields of the step or threads, what else it changes)."""
    step, where = patient.step, found.bottleneck
    changes: list[tuple[str, dict[str, Any], str]] = []
    if where in ("data loading", "storage", "network"):
        most = max(device.cores(), 2)
        if not step.workers:
            changes.append((f"workers: {most}", {"workers": most}, ""))
        if (size := _held_mb(patient)) is not None and size > step.hold_mb:
            changes.append((f"hold_mb: {size:.0f}", {"hold_mb": size}, "encoded once, held in memory"))
    if where in ("CPU", "device memory"):
        larger = min(
            step.rows_per_forward * 4,
            len(patient.bundle.data["train"]) if patient.bundle.data else step.rows_per_forward,
        )
        if larger > step.rows_per_forward:
            changes.append((f"batch_size: {larger}", {"batch_size": larger}, "fewer updates: try a higher rate"))
    if where == "CPU" and step.augment:
        changes.append(("augment: []", {"augment": ()}, "shows what augmenting costs; it may cost quality"))
    if where in ("device compute", "device memory", "CPU"):
        if step.precision == "fp32":
            changes.append(("precision: bf16", {"precision": "bf16"}, "look at the quality"))
        if patient.run.device == "cpu" and device.cores() > 1:
            threads = 1 if patient.run.threads > 1 else device.cores()
            changes.append((f"threads: {{train: {threads}}}", {"threads": threads}, ""))
    if where == "device compute" and not step.compile:
        changes.append(("compile: true", {"compile": True}, "compiling itself is not counted"))
    return changes


def _held_mb(patient: Patient) -> float | None:
    """MB of all rows encoded, if half the free memory holds them."""
    import psutil

    from luodi.train.loop.examples import size_mb

    assert patient.bundle.data is not None
    size = size_mb(patient.bundle.task, patient.bundle.data["train"]) * 1.05
    return size if size < psutil.virtual_memory().available / 2e6 else None


def _try(patient: Patient, fields: dict[str, Any], change: str, note: str, seconds: float) -> Trial:
    from luodi.doctor.probe import probe

    changed = patient.with_(**fields)
    gains = []
    try:
        for turn in range(ROUNDS):
            pair = [patient, changed] if turn % 2 else [changed, patient]
            rates = {id(one): probe(one, seconds / ROUNDS).rate for one in pair}
            gains.append(rates[id(changed)] / rates[id(patient)])
    except (LuodiError, RuntimeError, MemoryError) as error:
        return Trial(change, None, note=f"could not be tried: {str(error).splitlines()[0]}")
    return Trial(change, median(gains), min(gains), max(gains), note)


def advice(tried: list[Trial]) -> str:
    """What to change, in one sentence."""
    best = next((one for one in tried if one.gain is not None and one.gain >= WORTH and one.low and one.low > 1), None)
    if best is None:
        return "nothing that was tried helps by a tenth or more"
    return f"change {best.change}: {best.gain:.2f} times as many examples a second"
