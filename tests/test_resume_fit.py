"""Trainings killed at any moment, also while a checkpoint is written, and started again."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_data import SIDES, TOTALS, images_bundle, sha, table_bundle

from luodi.core.run import Run
from luodi.core.thing import make
from luodi.train.loop.checkpoint import Checkpoint

CONVNET = {"convnet": {"widths": [4, 8], "hidden": 16, "dropout": 0.3}}
TRAIN = {
    "train": {
        "epochs": 4, "batch_size": 12, "augment": ["affine"], "patience": 3, "clip": 1.0, "checkpoint_seconds": 1e-6,
    }
}  # fmt: skip
SGD = {"train": {"epochs": 4, "batch_size": 8, "accumulate": 2, "update": {"sgd": {"variant": "nesterov"}}}}
FOREIGN = {"train": {"epochs": 4, "batch_size": 16, "update": f"{Path(__file__).with_name('own_update.py')}:OwnUpdate"}}
BY_HAND = {"by_hand": {"epochs": 8, "batch_size": 4, "checkpoint_seconds": 1e-6}}
READ = {
    "train": {
        "epochs": 4, "batch_size": 12, "learn": {"gradual": {"every": 2}}, "precision": "bf16", "workers": 2,
        "hold_mb": 0,
        "augment": ["affine"], "schedule": "constant", "checkpoint_seconds": 1e-6,
    }
}  # fmt: skip
CASES = {
    "read": lambda: (READ, images_bundle(CONVNET)),
    "train": lambda: (TRAIN, images_bundle(CONVNET)),
    "by_hand": lambda: (BY_HAND, table_bundle(TOTALS, {"mlp": {"hidden": [16, 8]}})),
    "sgd": lambda: (SGD, table_bundle(SIDES, {"mlp": {"hidden": [16], "dropout": 0.2}})),
    "own": lambda: (FOREIGN, table_bundle(SIDES, {"mlp": {"hidden": [16], "dropout": 0.2}})),
}


def _train(case: str, folder: str, out: str, stopped: bool = False) -> None:
    """In a process of its own; says in a file what came out. `stopped`: waits for Ctrl-C after an epoch."""
    step, bundle = CASES[case]()
    notes = []

    def log(event, facts):
        Path(out).with_suffix(".started").touch()  # its memory is predicted and its first event said
        if event == "note":
            notes.append(facts["text"])
        if event == "epoch" and stopped:
            Path(out).with_suffix(".epoch").touch()
            while signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # put back once it is heard
                time.sleep(0.001)

    done = make("steps", step)(bundle, Run(Path(folder), seed=3, log=log))
    history = [{k: v for k, v in entry.items() if k != "seconds"} for entry in done.notes["history"]]
    found = {"sha": sha(done), "history": history, "notes": notes, "compiler": "torch._dynamo" in sys.modules}
    Path(out).write_text(json.dumps(found))


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "luodi.train.loop.fit", "luodi.tasks.supervised"])
    return context


def _start(processes, case, folder, out):
    Path(out).unlink(missing_ok=True)
    started = Path(out).with_suffix(".started")
    started.unlink(missing_ok=True)
    child = processes.Process(target=_train, args=(case, str(folder), str(out)))
    child.start()
    while not started.exists():
        assert child.is_alive() or child.exitcode == 0
        time.sleep(0.001)
    return child


@pytest.fixture(scope="module")
def whole(processes, tmp_path_factory):
    """What a case gives uninterrupted, and its seconds."""
    known = {}

    def of(case):
        if case not in known:
            folder = tmp_path_factory.mktemp(case)
            child, begun = _start(processes, case, folder / "run", folder / "whole.json"), time.monotonic()
            child.join()
            assert child.exitcode == 0
            known[case] = json.loads((folder / "whole.json").read_text()), time.monotonic() - begun
        return known[case]

    return of


@pytest.mark.parametrize(("case", "kills"), [("train", 8), ("by_hand", 5), ("read", 4)])
def test_killed_at_random_moments(processes, whole, tmp_path, case, kills):
    expected, seconds = whole(case)
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"{case}: seed of the moments: {seed}")
    dice, folder, out = np.random.default_rng(seed), tmp_path / "killed", tmp_path / "killed.json"
    died = went_on = 0
    for _ in range(kills):
        child = _start(processes, case, folder, out)
        child.join(timeout=float(dice.uniform(0, seconds * 0.7)))
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            died += 1
        else:  # it went on from far enough to be done: begin anew
            went_on += _same(json.loads(out.read_text()), expected)
    child = _start(processes, case, folder, out)
    child.join()
    went_on += _same(json.loads(out.read_text()), expected)
    assert died >= kills / 3, f"seed {seed}: only {died} of {kills} were killed"
    assert went_on, f"seed {seed}: no run that ended had gone on from a checkpoint"


def _same(found, expected) -> bool:
    assert found["sha"] == expected["sha"] and found["history"] == expected["history"]
    return any("going on from the checkpoint" in note for note in found["notes"])


def test_killed_while_a_checkpoint_is_written(processes, whole, tmp_path):
    """The file that is being written is torn in half, at three places of the run: the one before it is read."""
    expected, _ = whole("train")
    folder, out = tmp_path / "killed", tmp_path / "killed.json"
    for number in (2, 9, 17):
        child = processes.Process(target=_die_writing, args=("train", str(folder), str(out), number))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert (folder / "checkpoint" / "state.part").exists()
    child = _start(processes, "train", folder, out)
    child.join()
    assert _same(json.loads(out.read_text()), expected)
    assert not (folder / "checkpoint").exists()


def _die_writing(case: str, folder: str, out: str, number: int) -> None:
    import safetensors.torch

    write, left = safetensors.torch.save_file, [number]

    def torn(tensors, path, metadata=None):
        write(tensors, path, metadata)
        left[0] -= 1
        if not left[0]:
            whole = Path(path).read_bytes()
            Path(path).write_bytes(whole[: len(whole) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    safetensors.torch.save_file = torn
    _train(case, folder, out)


@pytest.mark.parametrize("case", ["train", "by_hand", "sgd", "own"])
def test_control_c_leaves_a_checkpoint_and_goes_on(processes, whole, tmp_path, case):
    expected, _ = whole(case)
    assert expected["compiler"] == (case == "own")  # torch's optimizers import it, ours do not: seconds at every start
    folder, out = tmp_path / "stopped", tmp_path / "stopped.json"
    child = processes.Process(target=_train, args=(case, str(folder), str(out), True))
    child.start()
    while not out.with_suffix(".epoch").exists():
        assert child.is_alive()
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGINT)
    child.join()
    assert child.exitcode == 1 and (folder / "checkpoint" / "state.safetensors").exists()
    child = _start(processes, case, folder, out)
    child.join()
    assert _same(json.loads(out.read_text()), expected)


def test_a_checkpoint_of_another_training_is_not_read(tmp_path):
    import torch

    first = Checkpoint(tmp_path, {"step": "a", "rows": "b"}, 60)
    assert first.load() is None
    first.save({"x": torch.arange(3)}, {"step": 4})
    saved = first.load()
    assert saved.facts["step"] == 4 and torch.equal(saved.tensors["x"], torch.arange(3))
    told = Checkpoint(tmp_path, {"step": "a", "rows": "other"}, 60).load()
    assert isinstance(told, str) and "another training (other rows)" in told
    first.remove()
    assert not tmp_path.exists()


def test_another_seed_or_config_starts_over(tmp_path):
    import torch

    def stop_at_epoch_two(event, facts):
        if event == "epoch" and facts["epoch"] == 2:
            raise RuntimeError("stopped")

    notes = []
    for fields, seed in (({"epochs": 3}, 0), ({"epochs": 4}, 0), ({"epochs": 4}, 1)):
        bundle = table_bundle(SIDES, {"mlp": {}})
        step = make("steps", {"train": {**fields, "checkpoint_seconds": 1e-6}})
        with pytest.raises(RuntimeError, match="stopped"):
            step(bundle, Run(tmp_path, seed=seed, log=stop_at_epoch_two))
        log = lambda event, facts: notes.append(facts["text"]) if event == "note" else None  # noqa: E731
        other = make("steps", {"train": {"epochs": 1}})
        other(table_bundle(SIDES, {"mlp": {}}), Run(tmp_path, seed=7, log=log))
    assert sum("of another training (other seed, starting weights, step)" in note for note in notes) == 3
    assert torch.get_deterministic_debug_mode() == 0
