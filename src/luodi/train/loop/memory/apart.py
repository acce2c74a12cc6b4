"""A training in a process of its own, so that running out of memory ends that process and nothing else.

It is started as a plain command, as the measuring process is: a user's script is not imported again. Events come back
line by line; bundle and weights go through files in the run's folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from luodi.core import store
from luodi.core.asset import assets_of
from luodi.core.atomic import write_json
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.source import Data
from luodi.core.thing import dump, make, own_names
from luodi.core.weights import fill, materialize, plain_tensors, save_weights
from luodi.train.loop.allocator import memory_held
from luodi.train.loop.memory.prediction import blank, familiar
from luodi.train.loop.memory.room import Peak, limit_growth, short_of_memory

if TYPE_CHECKING:
    from luodi.train.train import Train

# glibc maps large blocks with large pages: memory that is given back at once is then three times as fast. It can only
# be asked for when a process begins.
TUNED = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1"


class OutOfMemory(LuodiError):
    """A training needed more memory than there was."""

    exit_code = 1


def train_apart(step: Train, bundle: Bundle, run: Run, limit_mb: float | None) -> Bundle:
    """What the step makes of the bundle, in a process that may grow by `limit_mb` (None: as the machine allows).

    The bundle's task is fitted. Raises OutOfMemory if the allocator refused or the system killed the process, and
    KeyboardInterrupt after Ctrl-C, once the process has written its checkpoint.
    """
    with _done_apart("train", [step], bundle, run, limit_mb) as (said, folder):
        return _made(said, step, bundle, run, folder)


def probed_apart(steps: Sequence[Train], bundle: Bundle, run: Run, limit_mb: float | None) -> None:
    """Probes each step in turn (batch.py) and tells of it by an event "probe" {"rows", "rate", "mb"}; raises
    OutOfMemory at the first that does not fit."""
    with _done_apart("probe", steps, bundle, run, limit_mb):
        return


@contextmanager
def _done_apart(
    what: str, steps: Sequence[Train], bundle: Bundle, run: Run, limit_mb: float | None
) -> Generator[tuple[dict[str, Any], Path]]:
    """(what the process answered, its folder, which is removed at the end)."""
    folder = run.out / "apart"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        write_json(folder / "job.json", {"what": what, **_job(steps, bundle, run, limit_mb, folder)})
        status = _watched(folder, run)
        answer = folder / "answer.json"
        yield _judged(json.loads(answer.read_text(encoding="utf-8")) if answer.is_file() else {}, status), folder
    finally:
        shutil.rmtree(folder)


def _judged(said: dict[str, Any], status: int) -> dict[str, Any]:
    """The answer; raises what ended the process without one."""
    if "stopped" in said:
        raise KeyboardInterrupt
    if "memory" in said:
        raise OutOfMemory(said["memory"])
    if status == -signal.SIGKILL:
        raise OutOfMemory("the system killed the training (signal 9: out of memory)")
    if "refused" in said:
        raise LuodiError(said["refused"])
    if "done" not in said:
        raise RuntimeError(f"the training failed in its process (exit code {status}):\n{said.get('error', '')}")
    return said["done"]


def _job(steps: Sequence[Train], bundle: Bundle, run: Run, limit_mb: float | None, folder: Path) -> dict[str, Any]:
    assert bundle.data is not None
    plain = replace(bundle, data=None, forms={}, serving="torch", golden=None, evidence=(), notes={})
    plain.save(folder / "bundle")
    splits = {name: rows for name, rows in bundle.data.splits.items() if name in ("train", "validation")}
    named = [bundle.task, bundle.config, *steps, [edit.step for edit in bundle.edits]]
    return {
        "steps": [dump(step) for step in steps], "limit_mb": limit_mb, "trust": sorted(own_names(named)),
        "rows": {name: _put(rows, folder / name) for name, rows in splits.items()},
        "run": {
            "device": run.device, "seed": run.seed, "threads": run.threads, "scope": list(run.scope),
            "rehearse": run.rehearse, "out": str(run.out), "home": str(run.home) if run.home else None,
        },
    }  # fmt: skip


def _put(rows: Rows, path: Path) -> dict[str, Any]:
    """Where the process finds rows: a file that is mapped already is not written again."""
    if rows.path is None:
        return {"path": str(rows.save(path.with_suffix(".arrow"))), "chosen": None}
    if rows.chosen is not None:
        rows.chosen.tofile(path.with_suffix(".int64"))
    return {"path": str(rows.path), "chosen": str(path.with_suffix(".int64")) if rows.chosen is not None else None}


def _got(said: Mapping[str, Any]) -> Rows:
    rows = Rows.open(Path(said["path"]))
    return rows if said["chosen"] is None else rows.take(np.fromfile(said["chosen"], np.int64))


def _watched(folder: Path, run: Run) -> int:
    """Starts the process and passes its events on until it ends; its status. Ctrl-C is passed to it, once."""
    tuned = ["env", TUNED] if shutil.which("env") and sys.platform == "linux" else []
    command = [*tuned, sys.executable, "-m", "luodi.train.loop.memory.apart", str(folder)]
    # A session of its own: Ctrl-C at a terminal reaches it through us, and so only once.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    run.log("note", {"text": f"training in a process of its own ({process.pid})", "process": process.pid})
    try:
        while True:
            try:
                for line in process.stdout:
                    event, facts = json.loads(line)
                    run.log(event, facts)
                return process.wait()
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
    except BaseException:  # a listener that failed, or Ctrl-C once more: nobody would hear of it any more
        process.kill()
        process.wait()
        raise
    finally:
        process.stdout.close()


def _made(notes: dict[str, Any], step: Train, bundle: Bundle, run: Run, folder: Path) -> Bundle:
    """The bundle with the weights that the process left."""
    import torch
    from safetensors.torch import load_file

    model = bundle.model
    if model is None:
        assert bundle.config is not None
        with torch.device("meta"):
            model = bundle.task.build(bundle.config)
        model = materialize(model, "cpu")
    file = folder / "weights.safetensors"
    model = fill(model, load_file(file), plain_tensors(model)[1], file).to(run.device).eval()
    return step.done(bundle, model, notes)


# ---- in the process --------------------------------------------------------------------------------------------------


def _main(folder: Path) -> None:
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not get between the events
    with suppress(OSError):  # Linux: the first to go when the machine runs out of memory
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")

    def tell(event: str, facts: Mapping[str, Any]) -> None:
        events.write(json.dumps([event, facts], default=str) + "\n")

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    try:
        with memory_held(exact=True):
            answer = {"done": {"train": _train, "probe": _probe}[job["what"]](job, folder, tell)}
    except KeyboardInterrupt:
        answer = {"stopped": True}
    except LuodiError as error:
        answer = {"refused": str(error)}
    except Exception as error:
        whole = traceback.format_exc()
        answer = {"memory": str(error).strip() or type(error).__name__} if short_of_memory(error) else {"error": whole}
    write_json(folder / "answer.json", answer)


def _begun(job: dict[str, Any], folder: Path, tell: Any) -> tuple[list[Any], Bundle, Run, Peak]:
    """Everything imported, memory counted from here and limited: steps, bundle, run, the peak so far."""
    import torch

    import luodi.train.loop.fit
    import luodi.train.loop.validation  # noqa: F401 - imported before memory is counted

    given = job["run"]
    run = Run(
        Path(given["out"]), given["device"], given["seed"], given["threads"], scope=tuple(given["scope"]),
        rehearse=given["rehearse"], home=Path(given["home"]) if given["home"] else None, log=tell,
    )  # fmt: skip
    torch.set_num_threads(run.threads)
    steps = [make("steps", step) for step in job["steps"]]
    data = Data({name: _got(said) for name, said in job["rows"].items()})  # mapped, and so not counted
    pa.allocate_buffer(1)  # Arrow reserves a gigabyte of addresses, of which it uses next to nothing: before the limit
    head, trust = store.peek(folder / "bundle"), tuple(job["trust"])
    task = cast(Any, make("tasks", head["task"]))
    for asset in assets_of(task):
        asset.found(folder / "bundle" / "assets")
    task.encode(task.examples(2, 0))  # opens tokenizers
    if head["config"] is not None:
        config = cast(Any, make("models", head["config"]))
        familiar(cast(Any, steps[0]), partial(blank, task, config))
    peak = Peak(run.device)
    if job["limit_mb"] is not None:
        limit_growth(run.device, job["limit_mb"])
    bundle = Bundle.load(folder / "bundle", trust=trust, device=run.device, check=False)
    return steps, replace(bundle, task=task, data=data), run, peak


def _train(job: dict[str, Any], folder: Path, tell: Any) -> dict[str, Any]:
    (step,), bundle, run, peak = _begun(job, folder, tell)
    done = step.here(bundle, run, exact=True)
    assert done.model is not None
    notes = {**done.notes, "peak_mb": peak.mb()}
    save_weights(done.model, folder / "weights.safetensors")
    return notes


def _probe(job: dict[str, Any], folder: Path, tell: Any) -> dict[str, Any]:
    from luodi.train.loop.changes import texts_of
    from luodi.train.loop.examples import Read
    from luodi.train.loop.memory.batch import no_longer_pays, probe
    from luodi.train.loop.zeros import settled

    steps, bundle, run, _ = _begun(job, folder, tell)
    zeros = settled(steps[0].zeros, bundle)
    bundle = bundle.ready(run)
    assert bundle.data is not None
    rates: list[float] = []
    for step in steps:
        if no_longer_pays(rates):
            break
        texts = texts_of(step.augment, bundle.task, run)
        examples = Read(bundle.task, bundle.data["train"], run.device, texts)
        peak = Peak(run.device)
        rate = probe(step, bundle, examples, step.plan(bundle.task, examples, zeros, run, exact=True), run)
        rates.append(rate)
        tell("probe", {"rows": step.batch_size, "rate": rate, "mb": peak.mb()})
    return {}


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
