"""Runs: nothing is done twice, nothing else is done again, and no kill changes a bit of what comes out."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import System, files_of, luodi, shas, write_recipe
from safetensors.numpy import load_file

from luodi.cli import main
from luodi.core import engine, keys, measure, store, yaml
from luodi.core.bundle import Bundle
from luodi.core.catalog import ROOT, resolve
from luodi.core.child import Nursery
from luodi.core.errors import LuodiError, Refused
from luodi.core.folder import RunFolder
from luodi.core.recipe import Recipe


class Canned(Nursery):
    """Measures nothing: what is tried here is which steps are run."""

    def start(self) -> None:
        """There is no process."""

    def call(self, name: str, **arguments: Any) -> Any:
        return 1.0 if name.endswith(":weigh") else {"busy": False, "rows": "", "measures": {}}


@pytest.fixture(autouse=True)
def unmeasured(request, monkeypatch) -> None:
    """Runs in this process measure nothing, unless a test asks for `quick`."""
    if "quick" not in request.fixturenames:
        monkeypatch.setattr(engine, "Nursery", Canned)
        monkeypatch.setattr(measure, "weigh_server", lambda *_: None)


SPLIT = {"split": {"validation": 0.1, "test": 0.2}}
TRAIN = {"train": {"epochs": 2, "batch_size": 64, "learning_rate": 0.01}}
STEPS = (SPLIT, TRAIN, {"prune": {"sparsity": 0.5}}, "quantize")


def run(recipe: dict[str, Any], out: Path, cache: Path, **more: Any) -> engine.Result:
    return engine.run(Recipe.of(recipe), out=out, cache=cache, **more)


def events(folder: Path, *, since: int = 0) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[since:]]


def states(folder: Path) -> list[tuple[str, str]]:
    """(step, run or kept) of the last run in a folder."""
    every = events(folder)
    last = max(index for index, one in enumerate(every) if one["event"] == "start")
    return [(one["name"], one["state"]) for one in every[last:] if one["event"] == "step"]


def weights(bundle: Path) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in load_file(bundle / "weights.safetensors").items()}


@pytest.fixture(scope="module")
def done(table_system: System, shared_nursery, cache, tmp_path_factory) -> Path:
    """A finished run that the tests of caching copy."""
    from conftest import quickly

    out = tmp_path_factory.mktemp("done")
    with quickly(shared_nursery):
        assert run(table_system.recipe(*STEPS), out, cache).done == 4
    return out


@pytest.fixture
def again(done, tmp_path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(done, tmp_path / "out", copy_function=shutil.copy2))


# ---- nothing is done twice ----------------------------------------------------------------------------------------


def test_a_second_run_does_nothing(table_system, again, cache):
    def times() -> dict[str, int]:
        # A folder is published anew, of the same files; the stream of events grows.
        return {name: (again / "run" / name).stat().st_mtime_ns for name in files_of(again / "run") if "/" in name}

    before, content = times(), shas(again / "run/bundle")
    result = run(table_system.recipe(*STEPS), again, cache)
    assert (result.done, result.kept) == (0, 4)
    assert states(again / "run") == [(name, "kept") for name in ("split", "train", "prune", "quantize")]
    assert times() == before and shas(again / "run/bundle") == content
    assert not [one for one in events(again / "run", since=len(before)) if one["event"] in ("epoch", "measured")][8:]
    assert result.evidence == run(table_system.recipe(*STEPS), again, cache).evidence


def reran(recipe: dict[str, Any], out: Path, cache: Path) -> list[str]:
    """The steps that were run."""
    run(recipe, out, cache)
    return [name for name, state in states(out / "run") if state == "run"]


TRAINED_LONGER = {"train": {**TRAIN["train"], "epochs": 3}}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((SPLIT, TRAIN, {"prune": {"sparsity": 0.6}}, "quantize"), ["prune", "quantize"]),
        ((SPLIT, TRAIN, {"prune": {"sparsity": 0.5}}, {"quantize": {"activations": "int8"}}), ["quantize"]),
        ((SPLIT, TRAINED_LONGER, {"prune": {"sparsity": 0.5}}, "quantize"), ["train", "prune", "quantize"]),
        (({"split": {"test": 0.2}}, TRAIN, "prune", "quantize"), []),  # other words for the same fields
        ((SPLIT, TRAIN, "quantize"), ["quantize"]),  # a step taken out
        ((*STEPS, {"export": {"to": "onnx"}}), ["export"]),  # a step put behind
    ],
    ids=["prune", "quantize", "train", "nothing", "without prune", "export"],
)
def test_one_field_reruns_its_step_and_what_follows(steps, expected, table_system, again, cache):
    assert reran(table_system.recipe(*steps), again, cache) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seed": 1}, ["split", "train", "prune", "quantize"]),
        ({"threads": {"train": 2}}, ["split", "train", "prune", "quantize"]),
        ({"limits": {"size_mb": 1}}, []),
        ({"threads": {"train": 1, "serve": 2}}, []),
        ({"model": {"mlp": {"hidden": [17]}}}, ["split", "train", "prune", "quantize"]),
    ],
    ids=["seed", "threads", "limits", "serving threads", "model"],
)
def test_what_else_is_part_of_a_key(change, expected, table_system, again, cache):
    assert reran({**table_system.recipe(*STEPS), **change}, again, cache) == expected


def test_other_rows_are_another_run(table_system, again, cache, tmp_path):
    from conftest import kept_as_parquet

    source = kept_as_parquet(table_system.rows.take(range(500)), tmp_path / "fewer.parquet")
    assert reran({**table_system.recipe(*STEPS), "data": source}, again, cache) == [
        "split",
        "train",
        "prune",
        "quantize",
    ]


def test_what_is_measured_differently_is_measured_again(table_system, again, cache):
    recipe = table_system.recipe(*STEPS)
    recipe["measure"] = {**recipe["measure"], "calls": 30}
    seen = len(events(again / "run"))
    assert reran(recipe, again, cache) == []
    measured = [one["name"] for one in events(again / "run", since=seen) if one["event"] == "measured"]
    assert measured == ["split", "train", "prune", "quantize"]


def test_keep_last(table_system, again, cache):
    run({**table_system.recipe(*STEPS), "keep": "last"}, again, cache)
    assert len(list((again / "run/steps").iterdir())) == 1
    assert Bundle.load(again / "run/bundle").model is not None


def test_unused_steps_are_removed(table_system, again, cache):
    assert len(list((again / "run/steps").iterdir())) == 4
    run(table_system.recipe(SPLIT, TRAIN), again, cache)
    assert len(list((again / "run/steps").iterdir())) == 2
    records = {path.name for path in (again / "run/records").iterdir()}
    assert len(records) == 1, records


def test_a_sweep_that_was_killed_leaves_no_half_step(table_system, again, cache, monkeypatch):
    """Removing a kept step is killed in the middle; a later run that wants it does it again."""
    removed: list[Path] = []

    def half(path: Path) -> None:
        files = [p for p in Path(path).rglob("*") if p.is_file()]
        files[0].unlink()
        removed.append(path)
        raise KeyboardInterrupt

    monkeypatch.setattr("luodi.core.atomic.shutil.rmtree", half)
    with pytest.raises(KeyboardInterrupt):
        run(table_system.recipe(SPLIT, TRAIN), again, cache)
    monkeypatch.undo()
    assert len(removed) == 1
    result = run(table_system.recipe(*STEPS), again, cache)
    assert Bundle.load(result.bundle).model is not None
    assert sorted(p.name for p in (again / "run/steps").iterdir() if p.suffix) == []


# ---- sources ------------------------------------------------------------------------------------------------------


def with_a_line_more(monkeypatch: pytest.MonkeyPatch, changed: Path) -> None:
    """As if one line had been added to a file."""
    original = Path.read_bytes

    def read(path: Path) -> bytes:
        return original(path) + (b"\n# one line more\n" if path.resolve() == changed else b"")

    assert changed.is_file()
    monkeypatch.setattr(Path, "read_bytes", read)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("compress/prune.py", ["prune", "quantize"]),
        ("compress/quantize.py", ["quantize"]),
        ("models/layers/int8_weight.py", ["quantize"]),
        ("train/train.py", ["train", "prune", "quantize"]),
        ("train/loop/fit.py", ["train", "prune", "quantize"]),
        ("data/split.py", ["split", "train", "prune", "quantize"]),
        ("models/mlp.py", ["split", "train", "prune", "quantize"]),
        ("fields/number.py", ["split", "train", "prune", "quantize"]),
        ("models/convnet.py", []),
        ("fields/image.py", []),
        ("export/export.py", []),
        ("train/by_hand.py", []),
        ("report/page.py", []),
    ],
)
def test_one_line_in_a_file(file, expected, table_system, again, cache, monkeypatch):
    recipe = table_system.recipe(*STEPS)
    with_a_line_more(monkeypatch, ROOT / file)
    names = [name for name, _ in _keys(recipe)]
    plain = dict(_keys_of(recipe, again))
    changed = [name for name, key in _keys(recipe) if plain[name] != key]
    assert changed == expected and names == ["split", "train", "prune", "quantize"]


def _keys(recipe: dict[str, Any]) -> list[tuple[str, str]]:
    """Each step's key under a parent whose key is that of the step before, as in a run."""
    whole, parent, found = Recipe.of(recipe), ("", ""), []
    for step, name in zip(whole.steps, whole.step_names(), strict=True):
        key, _ = keys.key_of(step, [whole.task, whole.model], parent, {})
        found.append((name, key))
        parent = (key, "")
    return found


def _keys_of(recipe: dict[str, Any], _: Path) -> list[tuple[str, str]]:
    """The same from the files as they are on the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", _read_bytes)
        return _keys(recipe)


_read_bytes = Path.read_bytes


def test_one_line_in_our_file_reruns_it_in_a_run(table_system, again, cache, monkeypatch):
    with_a_line_more(monkeypatch, ROOT / "compress/prune.py")
    assert reran(table_system.recipe(*STEPS), again, cache) == ["prune", "quantize"]


OWN = '''
from luodi.core.step import Step


class {name}(Step):
    """Does nothing."""

    level: int = 1

    def __call__(self, bundle, run):
        return bundle.noting(level=self.level)
'''


def test_one_line_in_an_own_file_reruns_it(table_system, tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first_own.py").write_text(OWN.format(name="First"))
    (tmp_path / "second_own.py").write_text(OWN.format(name="Second"))
    recipe = table_system.recipe(SPLIT, TRAIN, "./first_own.py:First", "./second_own.py:Second")
    out = tmp_path / "out"
    first, second = "./first_own.py:First", "./second_own.py:Second"
    assert reran(recipe, out, cache) == ["split", "train", first, second]
    assert reran(recipe, out, cache) == []
    with (tmp_path / "second_own.py").open("a") as stream:
        stream.write("# a line\n")
    assert reran(recipe, out, cache) == [second]
    with (tmp_path / "first_own.py").open("a") as stream:
        stream.write("# a line\n")
    assert reran(recipe, out, cache) == [first, second]


def test_the_versions_of_libraries_are_part_of_a_key(table_system, monkeypatch):
    recipe = table_system.recipe(*STEPS)
    before = dict(_keys(recipe))
    original = keys.importlib.metadata.version
    monkeypatch.setattr(keys.importlib.metadata, "version", lambda n: "9" if n == "torch" else original(n))
    after = dict(_keys(recipe))
    assert before["train"] != after["train"] and before["prune"] != after["prune"]


def test_libraries_of_an_own_file_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "with_rich.py").write_text("import rich\n" + OWN.format(name="Rich"))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    step = resolve("steps", "./with_rich.py:Rich")
    before = keys.key_of(step, [], ("", ""), {})[0]
    original = keys.importlib.metadata.version
    monkeypatch.setattr(keys.importlib.metadata, "version", lambda n: "9" if n == "rich" else original(n))
    assert keys.key_of(step, [], ("", ""), {})[0] != before


# ---- seeds --------------------------------------------------------------------------------------------------------


def test_inserting_a_step_reseeds_no_other(table_system, done, tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "between.py").write_text(OWN.format(name="Between"))
    between = "./between.py:Between"
    plain = Recipe.of(table_system.recipe(*STEPS))
    longer = table_system.recipe(SPLIT, between, TRAIN, between, *STEPS[2:])
    result = run(longer, tmp_path / "out", cache)
    assert weights(result.bundle) == weights(done / "run/bundle"), plain.step_names()


def test_the_second_training_has_dice_of_its_own(table_system, tmp_path, cache):
    def train(epochs: int) -> dict[str, Any]:
        return {"train": {"epochs": epochs, "batch_size": 64, "learning_rate": 1e-3, "schedule": "constant"}}

    both = run(table_system.recipe(SPLIT, train(1), train(1)), tmp_path / "a", cache)
    same = run(table_system.recipe(SPLIT, train(1), train(1)), tmp_path / "b", cache)
    other = run({**table_system.recipe(SPLIT, train(1), train(1)), "seed": 5}, tmp_path / "c", cache)
    assert weights(both.bundle) == weights(same.bundle) != weights(other.bundle)
    orders = [
        one["notes"]["history"][0]["train_loss"] for one in map(dict, _said(tmp_path / "a/run")) if one["number"] > 1
    ]
    assert len(set(orders)) == 2


def _said(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in (folder / "steps").glob("*/step.json")]
    return sorted(found, key=lambda one: one["number"])


# ---- kills --------------------------------------------------------------------------------------------------------

# A child of this process runs a recipe as `luodi run` does, but has torch loaded already and measures in itself.
RUNNER = '''
import importlib, json, os, sys, time
from pathlib import Path

import pyarrow, torch
from luodi.core import appraise, engine, measure
from luodi.core.recipe import Recipe
from luodi.train.loop import checkpoint


class Inside:
    def __init__(self, *_): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def start(self): pass
    def call(self, name, **given):
        module, _, function = name.partition(":")
        return json.loads(json.dumps(getattr(importlib.import_module(module), function)(**given)))


engine.Nursery, appraise.WEIGHINGS, measure.weigh_server = Inside, 1, lambda *_: None


def say(text):
    os.write(1, f"{text}\\n".encode())


def pause(at):
    """Stands still in the middle of writing the at-th checkpoint."""
    replace, seen = Path.replace, [0]

    def watched(path, target):
        seen[0] += path.name == "state.part"
        if path.name == "state.part" and seen[0] == at:
            say("paused")
            time.sleep(600)
        return replace(path, target)

    Path.replace = watched


say("ready")
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        say(os.getpid())
        if job["pause"]:
            pause(job["pause"])
        code = 1
        try:
            engine.run(Recipe.read(Path(job["recipe"])), out=Path(job["out"]), cache=Path(job["cache"]))
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    say(f"ended {status}")
'''


class Runner:
    """A process that forks a child for each run, and kills it when told."""

    def __init__(self, cache: Path, errors: Path) -> None:
        self.errors, self.cache = errors, cache
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with errors.open("w") as stream:
            command = [sys.executable, "-c", RUNNER]
            self.process = subprocess.Popen(
                command, stdin=-1, stdout=-1, stderr=stream, text=True, env=environment, start_new_session=True
            )
        self.child = 0
        assert self.line() == "ready"

    def line(self) -> str:
        return self.process.stdout.readline().strip()

    def run(self, recipe: Path, out: Path, *, kill_after: float | None = None, pause: int = 0) -> bool:
        """Whether the run came to its end."""
        job = {"recipe": str(recipe), "out": str(out), "cache": str(self.cache), "pause": pause}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        self.child = int(self.line())
        if pause:
            assert self.line() == "paused", self.errors.read_text()
        if pause or kill_after is not None:
            time.sleep(kill_after or 0)
            with suppress(ProcessLookupError):  # it came to its end before
                os.kill(self.child, signal.SIGKILL)
        ended = self.line()
        self.child = 0
        assert ended in ("ended 0", "ended -9"), f"{ended}\n{self.errors.read_text()}"
        return ended == "ended 0"

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def runner(cache, tmp_path_factory):
    made = Runner(cache, tmp_path_factory.mktemp("runner") / "errors.txt")
    yield made
    made.close()


@pytest.fixture(scope="module")
def resumed(table_system: System, runner: Runner, tmp_path_factory) -> tuple[Path, Path, float]:
    """A recipe that writes a checkpoint at every update, its uninterrupted run, and the seconds that took."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    train = {"epochs": 4, "batch_size": 32, "learning_rate": 0.01, "checkpoint_seconds": 1e-9, "patience": 3}
    # Dropout draws from torch's own generator at every update.
    system = {**table_system.recipe(SPLIT, {"train": train}, "prune", {"train": {**train, "epochs": 2}}, "quantize")}
    system["model"] = {"mlp": {"hidden": [16], "dropout": 0.2}}
    recipe = write_recipe(folder / "run.yaml", system)
    start = time.perf_counter()
    assert runner.run(recipe, folder / "out")
    return recipe, folder / "out/run", time.perf_counter() - start


def assert_same_run(folder: Path, wanted: Path) -> None:
    """Every kept step and the published bundle have the same bits and the same digest."""
    for have, want in zip(_said(folder), _said(wanted), strict=True):
        assert have["name"] == want["name"] and have["key"] == want["key"]
        one, other = (base / "steps" / have["key"] / "bundle" for base in (folder, wanted))
        if (other / "weights.safetensors").exists():
            assert weights(one) == weights(other), have["name"]
        assert store.peek(one)["digest"] == store.peek(other)["digest"], have["name"]
    assert shas(folder / "bundle")["weights.safetensors"] == shas(wanted / "bundle")["weights.safetensors"]
    left = [name for name in files_of(folder) if ".part" in name or ".old" in name or ".gone" in name]
    assert left == [], left


def test_killed_at_random_moments_and_started_again(runner, resumed, tmp_path):
    """25 kills in chains: killed, started again, killed... each chain that comes to its end has the same bits."""
    recipe, wanted, usual = resumed
    at: list[str] = []
    chains, seed = 1, 1000
    while len(at) < 25:
        out, seed = tmp_path / str(chains), seed + 1
        if runner.run(recipe, out, kill_after=random.Random(seed).uniform(0, 0.7 * usual)):
            assert_same_run(out / "run", wanted)
            chains += 1
        else:
            at.append(_stage(out / "run"))
    assert runner.run(recipe, out)
    assert_same_run(out / "run", wanted)
    print(f"\nseeds 1001 to {seed}, {chains} chains; one run takes {usual:.2f} s; killed: {'; '.join(at)}")
    assert len({stage.split()[0] for stage in at}) >= 3, "the kills fell into several steps"


def _stage(folder: Path) -> str:
    """Where a killed run stood: its last event, and what it was writing."""
    if not (folder / "events.jsonl").exists():
        return "before the first event"
    last = events(folder)[-1]
    aside = [Path(name).name for name in files_of(folder) if ".part" in name]
    writing = f" writing {aside[0]}" if aside else ""
    return f"{last.get('name', last['event'])} after {last['event']}{writing}"


@pytest.mark.parametrize("number", [1, 2, 9, 30, 49])
def test_killed_in_the_middle_of_a_checkpoint(number, runner, resumed, tmp_path):
    """The file is written and not yet in its place: the one before counts."""
    recipe, wanted, _ = resumed
    assert not runner.run(recipe, tmp_path, pause=number)
    parts = [name for name in files_of(tmp_path / "run") if name.endswith("state.part")]
    assert len(parts) == 1 and "work/checkpoint" in parts[0]
    assert runner.run(recipe, tmp_path)
    went_on = [one for one in events(tmp_path / "run") if "going on from the checkpoint" in one.get("text", "")]
    assert len(went_on) == (number > 1)
    assert_same_run(tmp_path / "run", wanted)


def test_a_kept_bundle_that_a_kill_left_aside_comes_back(table_system, again, cache):
    """Killed between the two renames of adding the evidence: the bundle stands beside its place."""
    recipe = table_system.recipe(*STEPS)
    for home in (again / "run/steps").iterdir():
        (home / "bundle").rename(home / "bundle.old")
        (home / "measured.json").unlink()
    (again / "run/bundle").rename(again / "run/bundle.old")
    result = run(recipe, again, cache)
    assert result.done == 0
    assert not [name for name in files_of(again / "run") if ".old" in name]
    assert [one.name for one in Bundle.load(result.bundle).evidence] == ["split", "train", "prune", "quantize"]


def test_a_checkpoint_of_another_training_is_not_read(table_system, tmp_path, cache, runner):
    recipe = table_system.recipe(SPLIT, {"train": {"epochs": 3, "checkpoint_seconds": 1e-9}})
    assert not runner.run(write_recipe(tmp_path / "r.yaml", recipe), tmp_path, pause=7)
    (old,) = (tmp_path / "run/steps").glob("*/work/checkpoint/state.safetensors")
    kept = old.read_bytes()
    other = {**recipe, "seed": 9}
    result = run(other, tmp_path, cache)
    assert not old.exists(), "swept with its step"
    home = tmp_path / "run/steps" / _said(result.folder)[-1]["key"]
    shutil.rmtree(home / "bundle")
    (home / "step.json").unlink()
    wanted = weights(result.bundle)
    (home / "work/checkpoint").mkdir(parents=True)
    (home / "work/checkpoint/state.safetensors").write_bytes(kept)
    assert weights(run(other, tmp_path, cache).bundle) == wanted
    assert any("of another training" in one.get("text", "") for one in events(tmp_path / "run"))


def test_ctrl_c(table_system, tmp_path, cache):
    """Leaves a checkpoint, says what goes on, ends with 130; started again it ends with the same bits."""
    train = {"epochs": 60, "batch_size": 16, "learning_rate": 0.01}
    recipe = table_system.recipe(SPLIT, {"train": train}, name="ctrl c".replace(" ", "-"))
    path = write_recipe(tmp_path / "my recipe.yaml", recipe)
    command = ["run", str(path), "--out", str(tmp_path / "runs")]
    process = subprocess.Popen(
        [sys.executable, "-m", "luodi", *command], stdout=-1, stderr=-1, text=True, cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "LUODI_CACHE": str(cache)},
    )  # fmt: skip
    folder = tmp_path / "runs/ctrl-c"
    try:
        wait_for(lambda: (folder / "events.jsonl").exists() and '"epoch"' in (folder / "events.jsonl").read_text())
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, told
    assert "Traceback" not in told, told
    (line,) = [line for line in told.splitlines() if "goes on" in line and "luodi" in line]
    said = line.partition("luodi ")[2]
    import shlex

    assert shlex.split(said) == command, line
    assert len(list((folder / "steps").glob("*/work/checkpoint/state.safetensors"))) == 1
    result = run(recipe, tmp_path / "runs", cache)
    assert result.done == 1 and any("going on from" in one.get("text", "") for one in events(folder))
    whole = run(recipe, tmp_path / "whole", cache)
    assert weights(result.bundle) == weights(whole.bundle)


def wait_for(ready: Callable[[], bool], seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < ends, "it did not come"
        time.sleep(0.02)


def test_a_real_process_that_was_killed_goes_on(table_system, tmp_path, cache, done):
    """The whole command line, killed at three points of its life, then `luodi run` to the end."""
    path = write_recipe(tmp_path / "run.yaml", table_system.recipe(*STEPS))
    command = [sys.executable, "-m", "luodi", "run", str(path), "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LUODI_CACHE": str(cache)}
    for word in ('"start"', '"train"'):
        process = subprocess.Popen(command, stdout=-3, stderr=-3, env=environment)
        wait_for(lambda word=word: (tmp_path / "run/events.jsonl").exists()
                 and word in (tmp_path / "run/events.jsonl").read_text())  # fmt: skip
        process.kill()
        process.wait()
    result = run(table_system.recipe(*STEPS), tmp_path, cache)
    assert weights(result.bundle) == weights(done / "run/bundle")


def test_two_runs_in_one_folder(table_system, again, cache):
    with RunFolder(again / "run").locked():
        with pytest.raises(LuodiError, match=rf"another run \(process {os.getpid()}\) is at work in .*wait for it"):
            run(table_system.recipe(*STEPS), again, cache)
        path = write_recipe(again / "r.yaml", table_system.recipe(*STEPS))
        told = luodi("run", str(path), "--out", str(again))
        assert told.returncode == 2 and "another run" in told.stderr
    assert run(table_system.recipe(*STEPS), again, cache).done == 0


# ---- from a bundle ------------------------------------------------------------------------------------------------


def test_a_run_goes_on_from_a_bundle(quick, table_system, done, tmp_path, cache):
    recipe = {
        **table_system.recipe("prune", name="more"),
        "from": str(done / "run/steps" / _said(done / "run")[1]["key"] / "bundle"),
    }
    for name in ("task", "model", "data"):
        del recipe[name]
    result = run(recipe, tmp_path, cache)
    assert [(one.number, one.name) for one in result.evidence] == [(0, "start"), (1, "prune")]
    start, pruned = result.evidence
    assert start.step is None and start.rows == pruned.rows != ""
    assert pruned.measures["diagnosis.accuracy"].change is not None and pruned.touched is not None
    assert (result.done, result.kept) == (1, 0)
    again = run(recipe, tmp_path, cache)
    assert (again.done, again.kept) == (0, 1) and again.evidence == result.evidence
    assert weights(result.bundle) == weights(_third(done)), "as if it had been one recipe"
    longer = run({**recipe, "steps": ["prune", "quantize"]}, tmp_path, cache)
    assert (longer.done, longer.kept) == (1, 1)


def _third(done: Path) -> Path:
    return done / "run/steps" / _said(done / "run")[2]["key"] / "bundle"


def test_a_bundle_whose_rows_changed_is_refused(table_system, tmp_path, cache):
    from conftest import kept_as_parquet

    source = kept_as_parquet(table_system.rows, tmp_path / "rows.parquet")
    first = run({**table_system.recipe(SPLIT, TRAIN), "data": source}, tmp_path, cache)
    kept_as_parquet(table_system.rows.take(range(568)), tmp_path / "rows.parquet")
    more = {"name": "more", "from": str(first.bundle), "steps": ["prune"], "device": "cpu"}
    with pytest.raises(LuodiError, match=r"has other rows than when the bundle was made \(568 rows"):
        run(more, tmp_path, cache)
    assert not (tmp_path / "more/steps").exists(), "nothing was done"
    given = {**more, "data": source, "steps": [SPLIT, "prune"]}
    assert run(given, tmp_path, cache).done == 2, "told which rows to use now"


def test_evidence_on_other_rows_is_not_compared(quick, table_system, done, tmp_path, cache):
    from conftest import kept_as_parquet

    source = kept_as_parquet(table_system.rows.take(range(400)), tmp_path / "rows.parquet")
    recipe = {**table_system.recipe(SPLIT, "prune", name="more"), "from": str(done / "run/bundle"), "data": source}
    recipe["from"] = str(done / "run/steps" / _said(done / "run")[1]["key"] / "bundle")
    del recipe["task"], recipe["model"]
    result = run(recipe, tmp_path, cache)
    assert [one.name for one in result.evidence] == ["start", "split", "prune"]
    quality = [one.measures.get("diagnosis.accuracy") for one in result.evidence]
    changes = [one.change for one in quality if one is not None]
    assert None in changes


# ---- refused before work --------------------------------------------------------------------------------------------

BAD_ORDERS = [
    ((TRAIN,), r"step 1 train needs 'split'.*put split before it"),
    ((SPLIT, "prune"), r"step 2 prune needs 'float'.*|step 2 prune needs 'model'"),
    ((SPLIT, TRAIN, "quantize", "prune"), r"step 4 prune needs 'float', which step 3 quantize ended; put it before"),
    ((SPLIT, TRAIN, "quantize", TRAIN), r"step 4 train needs 'float', which step 3 quantize ended"),
    ((SPLIT, TRAIN, "quantize", "quantize"), r"step 4 quantize needs 'float', which step 3 quantize ended"),
    ((SPLIT, TRAIN, "quantize", {"export": {"to": "onnx", "activations": "int8"}}),
     r"step 4 export needs 'float', which step 3 quantize ended"),
    ((SPLIT, {"export": {"to": "onnx"}}), r"step 2 export needs 'model'.*put train before it"),
    ((SPLIT, SPLIT), r"step 2 split must not come after 'split'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "told"), BAD_ORDERS, ids=lambda part: None if isinstance(part, str) else str(len(part))
)
def test_the_wrong_order_is_refused_before_any_work(steps, told, table_system, tmp_path, cache):
    with pytest.raises(Refused, match=told):
        run(table_system.recipe(*steps), tmp_path, cache)
    assert not list(tmp_path.glob("run/steps")) and not list(tmp_path.glob("run/events.jsonl"))


def test_every_problem_is_told_at_once(table_system, tmp_path, cache):
    with pytest.raises(Refused) as caught:
        run(table_system.recipe("prune", TRAIN, "quantize"), tmp_path, cache)
    told = str(caught.value)
    assert "step 1 prune" in told and "step 2 train" in told, told


def test_a_quantised_bundle_refuses_what_ended(table_system, done, tmp_path, cache):
    recipe = {"name": "more", "from": str(done / "run/bundle"), "steps": ["prune"], "device": "cpu"}
    with pytest.raises(Refused, match=r"step 1 prune needs 'float'"):
        run(recipe, tmp_path, cache)


def test_by_hand_refuses_another_model(digits_system, tmp_path, cache):
    with pytest.raises(Refused, match=r"step 2 by_hand is not possible here.*multilayer perceptron"):
        run(digits_system.recipe(SPLIT, "by_hand"), tmp_path, cache)


def test_a_limit_on_no_metric_is_told_before_any_work(table_system, tmp_path, cache):
    recipe = {**table_system.recipe(SPLIT, TRAIN), "limits": {"drop": {"acuracy": 0.1}}}
    with pytest.raises(LuodiError, match=r"no metric is named 'acuracy'; did you mean"):
        run(recipe, tmp_path, cache)
    assert not list(tmp_path.glob("run/steps"))


def test_a_recipe_without_steps(table_system, tmp_path, cache):
    with pytest.raises(LuodiError, match="no steps"):
        run(table_system.recipe(), tmp_path, cache)


def test_a_step_that_fails_says_which_it_was(table_system, tmp_path, cache):
    recipe = table_system.recipe(SPLIT, {"train": {"epochs": 1, "learning_rate": 1e30}})
    with pytest.raises(LuodiError, match=r"^step 2 train: the loss became"):
        run(recipe, tmp_path, cache)
    assert run(table_system.recipe(SPLIT, TRAIN), tmp_path, cache).done == 1, "split was kept"


# ---- evidence and limits ------------------------------------------------------------------------------------------


def test_evidence_of_a_run(done):
    whole = json.loads((done / "run/bundle/evidence/evidence.json").read_text())
    assert [(one["number"], one["name"], one["form"]) for one in whole] == [
        (1, "split", ""), (2, "train", "torch"), (3, "prune", "torch"), (4, "quantize", "torch"),
    ]  # fmt: skip
    train, prune, int8 = whole[1:]
    assert {"diagnosis.accuracy", "p50_ms", "p95_ms", "size_mb", "memory_mb", "throughput_per_s"} <= set(
        train["measures"]
    )
    assert train["measures"]["size_mb"]["change"] is None and train["touched"] is None
    assert len({one["rows"] for one in whole[1:]}) == 1
    assert 0.3 < prune["touched"] <= 0.6 and prune["measures"]["size_mb"]["verdict"] == "same"
    assert int8["measures"]["size_mb"]["verdict"] == "better" and int8["words"]
    for one in whole[1:]:
        assert (done / "run/records" / one["records"]).is_file()
        assert one["machine"]["threads"] == 1 and one["machine"]["torch"]


def test_limits_of_a_run(table_system, again, cache):
    limits = {"size_mb": 1, "p99_ms": 100, "drop": {"accuracy": 1.0}}
    result = run({**table_system.recipe(*STEPS), "limits": limits}, again, cache)
    assert {one.limit: one.state for one in result.verdicts} == {
        "size_mb": "met", "p99_ms": "not measured", "drop.accuracy": "met",
    }  # fmt: skip
    assert [one["limit"] for one in json.loads((again / "run/limits.json").read_text())] == [
        v.limit for v in result.verdicts
    ]


def test_limits_without_a_model_are_not_met(table_system, tmp_path, cache):
    (verdict,) = run({**table_system.recipe(SPLIT), "limits": {"size_mb": 1}}, tmp_path, cache).verdicts
    assert verdict.state == "not measured"


@pytest.mark.parametrize(
    ("limits", "options", "code", "told"),
    [
        ("limits.size_mb=1", (), 0, "limit met: size_mb"),
        ("limits.size_mb=0.00001", (), 3, "limit missed: size_mb"),
        ("limits.p99_ms=50", (), 3, "limit not measured: p99_ms"),
        ("limits.drop={accuracy: 0.0001}", (), 0, "limit undecided"),
        ("limits.drop={accuracy: 0.0001}", ("--strict",), 3, "limit undecided"),
    ],
)
def test_exit_codes(limits, options, code, told, table_system, finished, tmp_path, capsys):
    """On a finished run: only the limits are judged again. Int8 moves a few of 171 answers either way, or none."""
    out = Path(shutil.copytree(finished / "runs", tmp_path / "runs"))
    words = ["run", str(finished / "cancer.yaml"), "--out", str(out), "--set", limits, *options]
    if "drop" in limits:
        undecide(out / "cancer")
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr()
    assert ended.value.code == code, said
    assert told in said.out + said.err


def undecide(folder: Path) -> None:
    """Turns a few answers of the last records, so that the loss is small and its interval holds the limit."""
    from pyarrow import array, parquet

    whole = json.loads((folder / "bundle/evidence/evidence.json").read_text())
    path = folder / "records" / whole[-1]["records"]
    table = parquet.read_table(path)
    name = "diagnosis.value"
    values = table.column(name).to_pylist()
    for row in (1, 60):
        values[row] = "benign" if values[row] == "malignant" else "malignant"
    index = table.column_names.index(name)
    parquet.write_table(table.set_column(index, name, array(values)), path)


# ---- rehearsal ------------------------------------------------------------------------------------------------------


def test_a_rehearsal_is_quick_marked_and_apart(quick, table_system, done, tmp_path, cache):
    out = Path(shutil.copytree(done, tmp_path / "out"))
    before = shas(out / "run")
    result = run(table_system.recipe(*STEPS), out, cache, rehearse=True)
    assert result.folder == out / "run.rehearsal" and all(one.rehearsal for one in result.evidence)
    assert shas(out / "run") == before
    rows = result.evidence[0].notes["rows"]
    assert sum(rows.values()) == 64
    assert yaml.parse((result.folder / "recipe.yaml").read_text())["name"] == "run"
    assert run(table_system.recipe(*STEPS), out, cache, rehearse=True).done == 0
