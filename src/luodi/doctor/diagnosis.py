"""What holds a training back, said from the numbers of a probe."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from luodi.doctor.probe import Patient, Reading

Bottleneck = Literal["device compute", "device memory", "CPU", "data loading", "storage", "network"]

LARGE = 0.35  # share of the wall time above which a part other than arithmetic is what holds back
STARVED = 1.5  # gain of a batch four times as large above which updates cost more than their arithmetic
FULL = 0.8  # share of the free memory


@dataclass(frozen=True)
class Diagnosis:
    """The bottleneck, the sentence that says why, and the figures behind it."""

    bottleneck: Bottleneck
    words: str
    flops_per_second: float
    flops_reachable: float  # what a large matrix product reaches here, fp32
    parameters: int


def diagnose(patient: Patient, reading: Reading, larger: Reading) -> Diagnosis:
    """The bottleneck of a probe; `larger` is the same training with batches four times as large."""
    from luodi.core.outlook import outlook

    view = None
    if patient.bundle.config is not None and patient.bundle.data is not None:
        rows = patient.bundle.data["train"]
        view = outlook(patient.bundle.task, patient.bundle.config, rows, patient.run.threads)
    parameters = sum(p.numel() for p in patient.bundle.model.parameters()) if patient.bundle.model is not None else 0
    reached = 3 * view.flops * reading.rate if view else 0.0
    bottleneck, words = _bottleneck(patient, reading, larger, parameters)
    return Diagnosis(bottleneck, words, reached, reachable(patient.run.device, patient.run.threads), parameters)


def _bottleneck(patient: Patient, reading: Reading, larger: Reading, parameters: int) -> tuple[Bottleneck, str]:
    import psutil

    free = psutil.virtual_memory().available / 1e6 + reading.peak_mb
    share, gain = reading.shares, larger.rate / reading.rate
    if reading.peak_mb > FULL * free:
        return "device memory", f"an update takes {reading.peak_mb:,.0f} MB of the {free:,.0f} MB that are free"
    if share["load"] >= LARGE:
        return _loading(patient, reading)
    if share["augment"] >= LARGE:
        names = ", ".join(type(one).__name__.lower() for one in patient.step.augment)
        return "CPU", f"{share['augment']:.0%} of the time goes into augmenting ({names})"
    if share["update"] >= LARGE:
        return "device memory", (
            f"{share['update']:.0%} of the time goes into moving {parameters:,} weights after every "
            f"{patient.step.rows_per_forward * patient.step.accumulate} rows: memory bandwidth, not arithmetic"
        )
    if gain >= STARVED:
        return "CPU", (
            f"an update of {patient.step.rows_per_forward} rows costs more than its arithmetic: with "
            f"four times as many {gain:.1f} times as many examples go through in the same time"
        )
    forward = share["forward"] + share["backward"]
    return "device compute", f"{forward:.0%} of the time is the model's own arithmetic, and larger batches do not help"


def _loading(patient: Patient, reading: Reading) -> tuple[Bottleneck, str]:
    part = f"{reading.shares['load']:.0%} of the time goes into reading and encoding rows"
    if reading.waiting < 0.5 or patient.step.workers:
        busy = "worker processes cannot keep up" if patient.step.workers else "the processor decodes them"
        return "data loading", f"{part}; {busy}"
    if reading.received_mb > max(reading.read_mb, 1.0):
        return "network", f"{part}; it waits while {reading.received_mb / reading.seconds:.1f} MB/s come in"
    return "storage", (
        f"{part}; {reading.waiting:.0%} of that is waiting with an idle processor "
        f"({reading.read_mb / reading.seconds:.1f} MB/s from the disk)"
    )


def reachable(device: str, threads: int) -> float:
    """Floating-point operations a second of a large fp32 matrix product on this device."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        side = 1024 if device == "cpu" else 8192
        matrix = torch.rand(side, side, device=device)
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            float((matrix @ matrix)[0, 0])  # reading a number waits for the device
            best = min(best, time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return 2 * side**3 / best
