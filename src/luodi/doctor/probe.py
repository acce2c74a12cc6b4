"""A few seconds of a recipe's real training, in a process of its own, with a clock in every part."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luodi.core import catalog, device
from luodi.core.apply import apply
from luodi.core.engine import first, refuse_all
from luodi.core.errors import LuodiError
from luodi.core.measure import MB, peak
from luodi.core.recipe import Recipe
from luodi.core.run import Run

if TYPE_CHECKING:
    from luodi.core.bundle import Bundle
    from luodi.train.loop.examples import Examples


@dataclass(frozen=True)
class Reading:
    """What a probe saw; shares are of the wall time, `waiting` is the share of loading that used no processor."""

    updates: int
    examples: int
    seconds: float
    shares: dict[str, float]
    waiting: float
    processor: float  # cores busy on average
    peak_mb: float
    read_mb: float  # from disks, by the whole machine, during the probe
    received_mb: float  # from the network

    @property
    def rate(self) -> float:
        """Examples a second."""
        return self.examples / self.seconds


@dataclass(frozen=True)
class Patient:
    """A recipe at the point where it trains: the bundle, the train step, and the run."""

    bundle: Bundle
    step: Any
    run: Run
    encoded: dict[float, Examples] = field(default_factory=dict)  # hold_mb -> the examples, encoded once for all probes

    def with_(self, threads: int | None = None, **fields: Any) -> Patient:
        """The same with other fields of the train step, or other threads."""
        step = type(self.step).model_validate({**dict(self.step), **fields})
        return replace(self, step=step, run=replace(self.run, threads=threads or self.run.threads))


def admit(recipe: Recipe, cache: Path, trust: tuple[str, ...]) -> Patient:
    """Runs everything before the recipe's first `train`, in a temporary folder. Raises LuodiError without one."""
    chosen = device.choose(recipe.device)
    threads = recipe.threads.train or device.cores()
    run = Run(Path(tempfile.mkdtemp(prefix="luodi-doctor-")), chosen, recipe.seed, threads)
    bundle = first(recipe, run, cache, trust)
    refuse_all(recipe, bundle)
    for number, step in enumerate(recipe.steps, 1):
        name = catalog.name_of(type(step))
        if name == "train":
            run = replace(run, scope=(name, 0))
            return Patient(bundle.ready(run), step, run)
        bundle = apply(step, bundle, replace(run, scope=(name, 0), out=run.out / f"{number}-{name}"), number)
    raise LuodiError("the doctor looks at a `train` step, and this recipe has none")


def probe(patient: Patient, seconds: float) -> Reading:
    """Trains a copy of the model for some seconds. Raises what the training raises."""
    import psutil

    from luodi.doctor.clock import Clock, TimedPlan, shares
    from luodi.train.loop.changes import texts_of
    from luodi.train.loop.checkpoint import Checkpoint
    from luodi.train.loop.examples import examples_of
    from luodi.train.loop.fit import fit
    from luodi.train.loop.patience import Patience

    bundle = patient.bundle.fork()
    assert bundle.data is not None and bundle.model is not None
    run, model, step = patient.run, bundle.model, patient.step
    if step.hold_mb not in patient.encoded:
        texts = texts_of(step.augment, bundle.task, run)
        found, _ = examples_of(bundle.task, bundle.data["train"], run.device, step.hold_mb, texts)
        patient.encoded[step.hold_mb] = found
    examples = patient.encoded[step.hold_mb]
    clock = Clock(run.device)
    plan = TimedPlan.of(step.plan(bundle.task, examples, "refill", run), clock, seconds)
    disk, network = psutil.disk_io_counters(), psutil.net_io_counters()
    checkpoint = Checkpoint(run.out / "checkpoint", {}, float("inf"))

    def work() -> None:
        fit(model, examples, plan, run, checkpoint, Patience(None, "loss", {}))

    weight = peak(work)
    checkpoint.remove()
    disk_after, network_after = psutil.disk_io_counters(), psutil.net_io_counters()
    load = clock.wall.get("load", 0.0)
    return Reading(
        updates=clock.updates, examples=clock.examples, seconds=clock.wall["all"], shares=shares(clock),
        waiting=max(1 - clock.processor.get("load", 0.0) / load, 0.0) if load else 0.0,
        processor=clock.processor["all"] / clock.wall["all"], peak_mb=weight / MB,
        read_mb=(disk_after.read_bytes - disk.read_bytes) / MB if disk and disk_after else 0.0,
        received_mb=(network_after.bytes_recv - network.bytes_recv) / MB,
    )  # fmt: skip


def examine(recipe: str, settings: list[str], cache: str, trust: list[str], seconds: float) -> dict[str, Any]:
    """In a child: the probe of a recipe, its bottleneck, and the changes that were tried."""
    import shutil

    from luodi.doctor.diagnosis import diagnose
    from luodi.doctor.trials import trials

    patient = admit(Recipe.read(Path(recipe), settings), Path(cache), tuple(trust))
    try:
        reading = probe(patient, seconds)
        found = diagnose(patient, reading, probe(patient.with_(**_larger(patient)), seconds / 2))
        tried = trials(patient, found, seconds)
    finally:
        shutil.rmtree(patient.run.out, ignore_errors=True)
    return {"reading": {**asdict(reading), "rate": reading.rate}, **asdict(found), "trials": [asdict(t) for t in tried]}


def _larger(patient: Patient) -> dict[str, int]:
    assert patient.bundle.data is not None
    return {"batch_size": min(patient.step.rows_per_forward * 4, len(patient.bundle.data["train"]))}
