"""The one place that times and weighs: saved bundles, opened in a clean child process, calls interleaved."""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from luodi.core import records, statistics
from luodi.core.bundle import Bundle
from luodi.core.evidence import Measure, plain
from luodi.core.predictor import Predictor
from luodi.core.rows import Rows
from luodi.core.run import Run

MB = 1e6  # bytes
SLOW = 4  # calls of one request at least, where 20 would take more than twice the budget


def assess(
    bundle: str, form: str, before: str | None, before_form: str | None, rows: str | None, records_path: str,
    before_records: str | None, before_rows: str, budget: dict[str, Any], threads: int, device: str, trust: list[str],
) -> dict[str, Any]:  # fmt: skip
    """In a child: opens a bundle and its parent (both parity-checked), times them in turn, scores the bundle."""
    _threads(threads)
    after = Bundle.load(Path(bundle), form=form, trust=tuple(trust), device=device)
    predictor = after.predictor(form, threads=threads)
    parent = None
    if before is not None:
        old = Bundle.load(Path(before), form=before_form, trust=tuple(trust), device=device)
        parent = old.predictor(before_form, threads=threads)
    held_out = _held_out(rows, budget)
    measures, busy = time_calls(predictor, parent, held_out, budget)
    single = measures["p50_ms"].value / 1e3
    measures["throughput_per_s"] = _throughput(predictor, _requests(predictor, held_out), budget["seconds"], single)
    result: dict[str, Any] = {"busy": busy, "rows": held_out.fingerprint if held_out is not None else ""}
    if held_out is not None:
        same = before_rows == result["rows"]  # other rows: not comparable
        measures |= _graded(predictor, held_out, records_path, before_records if same else None, budget)
    return {**result, "measures": {name: plain(measure) for name, measure in measures.items()}}


def glance(
    bundle: str, form: str, rows: str | None, records_path: str, before_records: str | None, most: dict[str, float],
    budget: dict[str, Any], threads: int, device: str, trust: list[str],
) -> dict[str, Any]:  # fmt: skip
    """In a child: the latency of a bundle, and unless one of its quantiles lies beyond `most` with its whole interval,
    its quality, paired with the answers in `before_records`, which are of the same rows."""
    _threads(threads)
    opened = Bundle.load(Path(bundle), form=form, trust=tuple(trust), device=device)
    predictor = opened.predictor(form, threads=threads)
    held_out = _held_out(rows, budget)
    measures, _ = time_calls(predictor, None, held_out, budget)
    beyond = any(name in measures and measures[name].low > allowed for name, allowed in most.items())
    if held_out is not None and not beyond:
        measures |= _graded(predictor, held_out, records_path, before_records, budget)
    return {name: plain(measure) for name, measure in measures.items()}


def _held_out(path: str | None, budget: dict[str, Any]) -> Rows | None:
    rows = Rows.open(Path(path)) if path else None
    return rows.take(np.arange(min(budget["rows"], len(rows)))) if rows is not None and budget["rows"] else rows


def _graded(
    predictor: Predictor, rows: Rows, records_path: str, before_records: str | None, budget: dict[str, Any]
) -> dict[str, Measure]:
    exam = predictor.task.examine(predictor, rows, budget["seconds"])
    records.write(exam, Path(records_path))
    past = records.read(Path(before_records)) if before_records is not None else None
    return score(predictor, exam, past, budget["resamples"])


def score(predictor: Predictor, exam: Any, past: Any, resamples: int) -> dict[str, Measure]:
    """Every metric with its interval, and the paired change on the rows that both exams share."""
    task = predictor.task
    better = dict(task.metrics())
    if past is None:
        return statistics.bootstrap(lambda i: task.score(exam.take(i)), None, len(exam), resamples, better)
    both, old = records.shared(exam, past)
    found = statistics.bootstrap(
        lambda i: task.score(both.take(i)), lambda i: task.score(old.take(i)), len(both), resamples, better
    )
    if len(both) < len(exam):  # the value itself always comes from every row that was scored
        whole = statistics.bootstrap(lambda i: task.score(exam.take(i)), None, len(exam), resamples, better)
        found = {
            name: m.model_copy(update={"change": found[name].change, "verdict": found[name].verdict})
            for name, m in whole.items()
        }
    return found


def time_calls(
    predictor: Predictor, parent: Predictor | None, rows: Rows | None, budget: dict[str, Any]
) -> tuple[dict[str, Measure], bool]:
    """Latency of one request (encode, forward, decode) in calls that alternate with the parent's. The second value says
    that the machine was busy: wall time ran well ahead of CPU time."""
    requests = _requests(predictor, rows)
    runners = [predictor] if parent is None else [predictor, parent]
    for runner in runners:
        start = time.perf_counter()
        for request in requests[:10]:
            runner([request])
            if time.perf_counter() - start > budget["seconds"] / 10:
                break
    gc.collect()
    times: list[list[float]] = [[] for _ in runners]
    wall, processor = time.perf_counter(), time.process_time()
    for index in range(budget["calls"]):
        request = [requests[index % len(requests)]]
        order = range(len(runners)) if index % 2 == 0 else reversed(range(len(runners)))
        for place in order:
            start = time.perf_counter()
            runners[place](request)
            times[place].append((time.perf_counter() - start) * 1e3)
        spent = time.perf_counter() - wall
        if (index >= 20 and spent > budget["seconds"] / 2) or (index >= SLOW and spent > budget["seconds"] * 2):
            break
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    mine = np.asarray(times[0])
    theirs = np.asarray(times[1]) if parent is not None else None
    shares = {"p50_ms": 0.5, "p95_ms": 0.95} | ({"p99_ms": 0.99} if len(mine) >= 1000 else {})
    found = {name: statistics.quantile(mine, share, theirs) for name, share in shares.items()}
    return found, processor < 0.8 * wall


def _requests(predictor: Predictor, rows: Rows | None) -> list[Any]:
    return predictor.task.samples(rows, 64, Run(out=Path()))


def _throughput(predictor: Predictor, requests: list[Any], seconds: float, single: float) -> Measure:
    """In batches of 64, of as many less as a batch would take `seconds` one by one: half of them and so on."""
    size = 64
    while size > 1 and size * single > seconds:
        size //= 2
    batch = [requests[i % len(requests)] for i in range(size)]
    predictor(batch)
    rates: list[float] = []
    start = time.perf_counter()
    while len(rates) < 9 and (len(rates) < 3 or time.perf_counter() - start < seconds / 10):
        at = time.perf_counter()
        predictor(batch)
        rates.append(len(batch) / (time.perf_counter() - at))
    return statistics.repeated(rates)


def weigh(bundle: str, form: str, threads: int, device: str, trust: list[str], library: str) -> float:
    """In a child: MB that opening the bundle and answering adds at its peak to a process with the libraries loaded."""
    if library:
        importlib.import_module(library)
    _threads(threads)

    def work() -> None:
        opened = Bundle.load(Path(bundle), form=form, trust=tuple(trust), device=device, check=False)
        predictor = opened.predictor(form, threads=threads)
        for request in opened.task.examples(4, seed=1):
            predictor([request])

    return peak(work) / MB


def peak(work: Callable[[], None]) -> float:
    """Bytes by which this process's resident memory rises at most while `work` runs.

    Linux: the high-water mark, reset before (`ru_maxrss` cannot be reset). Elsewhere: sampled every millisecond.
    """
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        gc.collect()
        reset.write_text("5", encoding="ascii")
        before = status_bytes("self", "VmRSS")
        work()
        return float(max(status_bytes("self", "VmHWM") - before, 0))
    import psutil

    process, ended, seen = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def sample() -> None:
        while not ended.wait(0.001):
            seen[0] = max(seen[0], process.memory_info().rss)

    watcher = threading.Thread(target=sample)
    watcher.start()
    try:
        work()
    finally:
        ended.set()
        watcher.join()
    return float(max(seen[0] - before, 0))


def status_bytes(process: int | str, name: str) -> int:
    """A line of /proc/<process>/status in bytes: VmRSS, VmHWM."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {name} in /proc/{process}/status")


def weigh_server(bundle: Path, form: str, trust: tuple[str, ...]) -> float | None:
    """MB of the whole server process at its peak, from a plain start until it is ready; None off Linux."""
    if not Path("/proc/self/status").exists():
        return None
    command = [sys.executable, "-m", "luodi", "serve", str(bundle), "--form", form, "--port", "0"]
    for name in trust:
        command += ["--trust", name]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=_end_with_parent
    )
    assert process.stdout is not None
    try:
        ready = any(line.startswith("serving") for line in process.stdout)
        return status_bytes(process.pid, "VmHWM") / MB if ready else None
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def _end_with_parent() -> None:
    """Linux: a server must not outlive a run that was killed while it weighed it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG


def size_mb(bundle: Path, form: str) -> float:
    """MB on disk of what serves: the form's files, or the weights, and the assets."""
    prefixes = ("weights", "assets/") if form == "torch" else (f"forms/{form}/", "assets/")
    files = [p for p in bundle.rglob("*") if p.is_file() and p.relative_to(bundle).as_posix().startswith(prefixes)]
    return sum(p.stat().st_size for p in files) / MB


def machine(threads: int, device: str) -> dict[str, Any]:
    """The machine behind a figure: processor, cores, threads, device, versions."""
    packages = ("torch", "numpy", "onnxruntime", "openvino", "pillow")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "threads": threads,
        "device": device,
        **{name: found for name in packages if (found := _version(name))},
    }


@cache
def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _threads(count: int) -> None:
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(count)


def as_measures(value: dict[str, Any]) -> dict[str, Measure]:
    """Measures that came back from a child as JSON."""
    return {name: Measure.model_validate_json(json.dumps(one)) for name, one in value.items()}
