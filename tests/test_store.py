"""Bundles on disk: equal bits, no changed byte unseen, no code run, no kill that leaves half of one."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import files_of, luodi, reseal, shas
from torch import nn

from luodi.cli import main
from luodi.core import atomic, store
from luodi.core.apply import apply, reopen
from luodi.core.bundle import Bundle, Golden
from luodi.core.catalog import resolve
from luodi.core.errors import Damaged, LuodiError
from luodi.core.evidence import Evidence
from luodi.core.predictor import TorchForward
from luodi.core.run import Run
from luodi.core.weights import fill, materialize, plain_tensors, save_weights


def copied(bundle: Path, tmp_path: Path) -> Path:
    """A copy of its own: kept bundles share their files by hard links."""
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def edited(path: Path, folder: Path, *steps: Any) -> Bundle:
    """A saved bundle after further steps."""
    bundle = Bundle.load(path)
    for step in steps:
        made: Any = resolve("steps", step)
        bundle = apply(made, bundle, Run(folder))
    return bundle


def assert_equal_bits(first: nn.Module, second: nn.Module) -> None:
    have, want = first.state_dict(), second.state_dict()
    assert list(have) == list(want) and have
    for name, tensor in want.items():
        assert tensor.dtype == have[name].dtype and tensor.shape == have[name].shape
        assert tensor.numpy().tobytes() == have[name].numpy().tobytes(), name


def assert_same_golden(first: Golden | None, second: Golden | None) -> None:
    assert first is not None and second is not None
    assert first.requests == second.requests and first.answers == second.answers
    for have, want in ((first.arrays, second.arrays), *((first.outputs[k], second.outputs[k]) for k in second.outputs)):
        assert have.keys() == want.keys()
        for name in want:
            assert have[name].dtype == want[name].dtype
            np.testing.assert_array_equal(have[name], want[name])


CHAINS = [
    ("plain", ()),
    ("pruned", ({"prune": {"sparsity": 0.7}},)),
    ("int8", ({"prune": {"sparsity": 0.5, "scope": "global"}}, "quantize")),
    ("dynamic", ({"quantize": {"activations": "int8"}},)),
]


@pytest.mark.parametrize("which", ["digits_bundle", "table_bundle"])
@pytest.mark.parametrize(("name", "steps"), CHAINS, ids=[name for name, _ in CHAINS])
def test_round_trip(which, name, steps, request, tmp_path):
    bundle = edited(request.getfixturevalue(which), tmp_path, *steps)
    path = bundle.save(tmp_path / "bundle")
    again = Bundle.load(path)
    assert_equal_bits(again.model, bundle.model)
    assert again.task == bundle.task and again.config == bundle.config and again.edits == bundle.edits
    assert again.facts == bundle.facts and again.serving == "torch" and again.adopted == bundle.adopted
    assert_same_golden(again.golden, bundle.golden)
    assert again.data.origin == bundle.data.origin
    digest = store.peek(path)["digest"]
    assert store.peek(again.save(tmp_path / "again"))["digest"] == digest
    requests = bundle.task.examples(3, seed=5)
    assert again.predictor()(requests) == bundle.predictor()(requests)


def test_forms_come_back_and_are_opened_without_torch(exported_bundle, tmp_path):
    bundle = Bundle.load(exported_bundle)
    assert bundle.serving == "onnx" and set(bundle.golden.outputs) == {"torch", "onnx"}
    path = bundle.save(tmp_path / "again")
    again = Bundle.load(path)
    assert shas(path / "forms") == shas(exported_bundle / "forms")
    assert again.forms["onnx"].model_copy(update={"folder": None}) == bundle.forms["onnx"].model_copy(
        update={"folder": None}
    )
    only = Bundle.load(path, form="onnx")
    assert only.model is None and set(only.forms) == {"onnx"}
    script = (
        "import sys; from pathlib import Path; from luodi.core.bundle import Bundle\n"
        f"bundle = Bundle.load(Path({str(path)!r}), form='onnx')\n"
        "answers = bundle.predictor()(bundle.task.examples(2, seed=1))\n"
        "assert len(answers) == 2 and 'onnxruntime' in sys.modules\n"
        "assert not {'torch', 'pyarrow', 'pandas', 'datasets'} & set(sys.modules), 'heavy packages'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_form_that_is_not_there(exported_bundle):
    with pytest.raises(LuodiError, match="did you mean 'onnx'"):
        Bundle.load(exported_bundle, form="onxx")
    assert Bundle.load(exported_bundle, form="serving").model is None


def test_every_file_is_guarded(exported_bundle, tmp_path):
    """One byte of each file, first, middle or last, is noticed with the file's name; so is a file that is gone."""
    names = files_of(exported_bundle)
    assert len(names) >= 8
    for number, name in enumerate(names):
        path = copied(exported_bundle, tmp_path / str(number))
        data = bytearray((path / name).read_bytes())
        place = (0, len(data) // 2, len(data) - 2)[number % 3]
        data[place] ^= 1
        (path / name).write_bytes(bytes(data))
        with pytest.raises(Damaged) as caught:
            Bundle.load(path)
        assert f"{path}/{name}" in str(caught.value), caught.value
        if name == "bundle.json":
            continue
        (path / name).unlink()
        with pytest.raises(Damaged, match=f"{name} is missing"):
            Bundle.load(path)


def test_what_a_form_needs_is_guarded_when_it_alone_is_opened(exported_bundle, tmp_path):
    for number, name in enumerate(["forms/onnx/model.onnx", "golden/onnx.safetensors", "evidence/evidence.json"]):
        path = copied(exported_bundle, tmp_path / str(number))
        (path / name).write_bytes((path / name).read_bytes() + b" ")
        with pytest.raises(Damaged, match=name):
            Bundle.load(path, form="onnx")


def test_every_character_of_the_manifest_is_sealed(table_bundle, tmp_path):
    path = copied(table_bundle, tmp_path)
    text = (path / "bundle.json").read_text(encoding="utf-8")
    dice, opened = random.Random(0), 0
    for _ in range(60):
        place = dice.randrange(len(text))
        changed = text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]
        (path / "bundle.json").write_text(changed, encoding="utf-8")
        try:
            assert store.peek(path) == {k: v for k, v in json.loads(text).items() if k != "seal"}, text[place]
            opened += 1  # white space between values
        except Damaged:
            pass
    assert opened < 30


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "{", '{"format": "x"}', '{"format": 1}', '{"format": null}'])
def test_a_manifest_that_is_none(text, table_bundle, tmp_path):
    path = copied(table_bundle, tmp_path)
    (path / "bundle.json").write_text(text)
    with pytest.raises(Damaged, match=r"bundle\.json"):
        Bundle.load(path)


def test_a_damaged_bundle_ends_with_code_2(table_bundle, tmp_path, capsys):
    path = copied(table_bundle, tmp_path)
    data = (path / "weights.safetensors").read_bytes()
    (path / "weights.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(SystemExit) as caught:
        main(["predict", str(path), "-"])
    assert caught.value.code == 2
    assert "weights.safetensors was changed" in capsys.readouterr().err


def test_from_the_future(table_bundle, tmp_path):
    path = copied(table_bundle, tmp_path)
    reseal(path, lambda head: head.update(format=store.FORMAT + 1, luodi="9.1.0"))
    with pytest.raises(Damaged, match=r"written by luodi 9\.1\.0 in format 2.*pip install --upgrade luodi"):
        Bundle.load(path)
    head = json.loads((path / "bundle.json").read_text())
    (path / "bundle.json").write_text(json.dumps({"format": 9, "luodi": head["luodi"], "new": {}}))
    with pytest.raises(Damaged, match="upgrade"):  # however else the future writes its manifest
        Bundle.load(path)


def test_an_edit_of_another_version_is_refused(table_bundle, tmp_path):
    path = edited(table_bundle, tmp_path, "prune").save(tmp_path / "bundle")
    assert [edit["version"] for edit in json.loads((path / "bundle.json").read_text())["edits"]] == [1, 1]
    reseal(path, lambda head: head["edits"][1].update(version=7))
    with pytest.raises(Damaged, match=r"version 7 of prune, this luodi has version 1"):
        Bundle.load(path)


def test_tensors_that_the_edits_do_not_rebuild_are_refused(table_bundle, tmp_path):
    path = edited(table_bundle, tmp_path, "quantize").save(tmp_path / "bundle")
    reseal(path, lambda head: head.update(edits=head["edits"][:-1]))
    with pytest.raises(Damaged, match="other tensors"):
        Bundle.load(path)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "golden/../../outside"])
def test_a_manifest_names_no_file_outside(name, table_bundle, tmp_path):
    path = copied(table_bundle, tmp_path)
    reseal(path)
    head = json.loads((path / "bundle.json").read_text())
    head["sha256"][name] = "0" * 64
    del head["seal"]
    head["seal"] = store.sha256(store._canonical(head).encode()).hexdigest()
    (path / "bundle.json").write_text(json.dumps(head))
    with pytest.raises(Damaged, match="outside"):
        Bundle.load(path)


def test_no_bundle(tmp_path):
    with pytest.raises(LuodiError, match=r"is no bundle.*luodi list runs"):
        Bundle.load(tmp_path / "none")


def test_digest_covers_what_it_is_and_not_what_was_measured(table_bundle, tmp_path):
    path = copied(table_bundle, tmp_path)
    before, files = store.peek(path)["digest"], shas(path)
    one = Evidence(step=None, name="train", number=1, form="torch", seconds=1.5)
    store.add(path, (one,), card="# a card\n")
    assert store.peek(path)["digest"] == before and (path / "card.md").read_text() == "# a card\n"
    assert Bundle.load(path).evidence == (one,)
    same = {name for name in files if files[name] == shas(path)[name]}
    assert files.keys() - same == {"bundle.json", "evidence/evidence.json"}
    store.add(path, card="# another\n")
    assert Bundle.load(path).evidence == (one,), "a new card leaves the evidence"
    bundle = Bundle.load(path)
    with torch.no_grad():
        next(iter(bundle.model.parameters())).view(-1)[0] += 1
    assert store.peek(bundle.save(tmp_path / "other"))["digest"] != before
    served = replace(Bundle.load(path), task=bundle.task.model_copy(update={"targets": bundle.task.targets}))
    assert store.peek(served.save(tmp_path / "same"))["digest"] == before


def test_files_are_never_written_in_place(table_bundle, tmp_path):
    """Kept bundles share files: saving over one must not reach into the other."""
    path = copied(table_bundle, tmp_path)
    shared = tmp_path / "shared"
    for name in files_of(path):
        atomic.link_or_copy(path / name, shared / name)
    before = shas(shared)
    store.add(path, (), card="x")
    edited(path, tmp_path, "prune").save(path)
    assert shas(shared) == before and (shared / "weights.safetensors").stat().st_nlink == 1


def test_no_pickle(exported_bundle, tmp_path, monkeypatch):
    """No file is a pickle or an archive, and nothing of pickle or torch.load is called to open one."""
    path = edited(exported_bundle, tmp_path, {"export": {"to": "onnx"}}).save(tmp_path / "bundle")
    known = {".safetensors", ".json", ".jsonl", ".onnx", ".md"}
    for name in files_of(path):
        assert Path(name).suffix in known, name
        start = (path / name).read_bytes()[:4]
        assert not start.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04", b"\x93NUM")), (
            name
        )

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("pickle was used")

    for owner, name in ((torch, "load"), (torch, "save"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(owner, name, refuse)
    bundle = Bundle.load(path)
    assert bundle.predictor("torch")(bundle.task.examples(1, seed=0))
    bundle.save(tmp_path / "again")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 5, bias=False)
        self.out.weight = self.table.weight
        self.register_buffer("steps", torch.tensor(3, dtype=torch.int64))
        self.register_buffer("none", torch.empty(0, 4, dtype=torch.bfloat16))

    def forward(self, **batch):
        return {"y": self.out(self.table(batch["x"]))}


def test_tied_weights_are_stored_once_and_tied_again(tmp_path):
    from safetensors.torch import load_file

    model = Tied()
    aliases = save_weights(model, tmp_path / "w.safetensors")
    assert aliases == {"out.weight": "table.weight"}
    tensors = load_file(tmp_path / "w.safetensors")
    assert sorted(tensors) == ["none", "steps", "table.weight"]
    with torch.device("meta"):
        fresh = Tied()
    fresh = fill(materialize(fresh, "cpu"), tensors, aliases, tmp_path)
    assert fresh.out.weight is fresh.table.weight
    assert_equal_bits(fresh, model) if "none" not in model.state_dict() else None
    assert torch.equal(fresh.table.weight, model.table.weight) and int(fresh.steps) == 3
    for odd in ({}, {"out.weight": "steps"}):
        with pytest.raises(Damaged):
            fill(Tied(), tensors, odd, tmp_path)
    with pytest.raises(Damaged, match="steps is"):
        fill(Tied(), {**tensors, "steps": torch.zeros((), dtype=torch.int32)}, aliases, tmp_path)


def test_tensor_subclasses_are_plain_inner_tensors(tmp_path):
    from torch.testing._internal.two_tensor import TwoTensor

    model = nn.Linear(2, 2, bias=False)
    model.weight = nn.Parameter(TwoTensor(torch.eye(2), torch.ones(2, 2)))
    tensors, aliases = plain_tensors(model)
    assert sorted(tensors) == ["weight::a", "weight::b"] and not aliases
    save_weights(model, tmp_path / "w.safetensors")


def test_a_buffer_that_is_not_saved_is_our_mistake(tmp_path):
    model = nn.Linear(2, 2)
    model.register_buffer("hidden", torch.ones(2), persistent=False)
    with pytest.raises(AssertionError, match="hidden"):
        save_weights(model, tmp_path / "w.safetensors")


def test_helpers_of_a_forward_leave_torch_as_it_was(table_bundle):
    bundle = Bundle.load(table_bundle)
    arrays = bundle.task.encode(bundle.task.examples(2, seed=0))
    forward = TorchForward(bundle.model)
    np.testing.assert_array_equal(forward(arrays)["diagnosis"], forward(arrays)["diagnosis"])
    assert torch.is_grad_enabled()


# ---- code of strangers ------------------------------------------------------------------------------------------

OWN = '''
from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from luodi.core.bundle import Edit
from luodi.core.source import Source
from luodi.core.form import Runtime
from luodi.core.step import Step
from luodi.core.task import Task

Path(__file__).with_suffix(".marker").write_text("the file was run")


class Same(Step):
    """Changes nothing, and says so in an edit."""

    def __call__(self, bundle, run):
        return bundle.with_model(bundle.model, edit=Edit(step=self))


class Rows(Source):
    """No rows."""


class Answers(Runtime):
    """No runtime."""


class Works(Task):
    """No task."""


class Net(nn.Module):
    """A linear model."""

    def __init__(self, inputs, outputs, *, scale: float = 1.0) -> None:
        super().__init__()

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        return {}
'''


def own_file(folder: Path, name: str) -> tuple[str, Path]:
    """A user's file of its own name (modules are kept by path) and the marker that running it leaves."""
    (folder / f"{name}.py").write_text(OWN)
    return f"./{name}.py", folder / f"{name}.marker"


def own_head(kind: str, where: str, head: dict[str, Any]) -> None:
    """Puts an import path into one place of a manifest."""
    if kind == "step":
        head["edits"][0]["step"] = {f"{where}:Same": {}}
    elif kind == "model":
        head["config"] = {f"{where}:Net": {}}
    elif kind == "task":
        head["task"] = {f"{where}:Works": {}}
    elif kind == "field":
        inputs = head["task"]["supervised"]["inputs"]
        inputs[next(iter(inputs))] = {f"{where}:Works": {}}
    elif kind == "schedule inside a step":
        head["edits"][0]["step"]["train"]["schedule"] = {f"{where}:Same": {}}
    elif kind == "runtime inside a step":
        head["edits"][0]["step"] = {"export": {"to": f"{where}:Answers"}}
    elif kind == "form":
        head["forms"]["onnx"]["kind"] = f"{where}:Answers"
    elif kind == "source":
        head["origin"]["source"] = {f"{where}:Rows": {}}
    else:
        head["origin"]["steps"].append({"step": {f"{where}:Same": {}}, "seed": 0, "scope": []})


PLACES = [
    "step",
    "model",
    "task",
    "field",
    "schedule inside a step",
    "runtime inside a step",
    "form",
    "source",
    "data step",
]


@pytest.mark.parametrize("spelling", ["file", "whole path", "package"])
@pytest.mark.parametrize("kind", PLACES)
def test_a_strangers_bundle_runs_no_code(kind, spelling, exported_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    stem = f"evil_{PLACES.index(kind)}_{spelling.replace(' ', '_')}"
    where, marker = own_file(tmp_path, stem)
    where = {"file": where, "whole path": str(tmp_path / f"{stem}.py"), "package": stem}[spelling]
    path = copied(exported_bundle, tmp_path)
    from hashlib import sha256

    def forge(head: dict[str, Any]) -> None:
        own_head(kind, where, head)
        names = {f"{where}:{name}" for name in ("Same", "Net", "Works", "Answers", "Rows")}
        head["own"] = dict.fromkeys(names, sha256(OWN.encode()).hexdigest())
        if head["origin"]:
            head["origin"]["own"] = head["own"]

    reseal(path, forge)
    with pytest.raises(LuodiError, match="it runs only if you trust it: --trust"):
        reopen(Bundle.load(path), tmp_path / "cache", Run(tmp_path))
    assert not marker.exists() and stem not in sys.modules, f"{kind}: the file was run"
    if kind not in ("source", "data step"):
        for form in ("onnx", "serving", "torch"):
            with pytest.raises(LuodiError):
                Bundle.load(path, form=form)
    with pytest.raises(LuodiError):  # trusting one name trusts no other
        reopen(Bundle.load(path, trust=("./other.py:Same",)), tmp_path, Run(tmp_path), ("./other.py:Same",))
    assert not marker.exists()


def test_trusted_by_name_and_unchanged(table_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where, marker = own_file(tmp_path, "trusted_step")
    name = f"{where}:Same"
    path = edited(table_bundle, tmp_path, name).save(tmp_path / "bundle")
    assert marker.exists(), "the marker works"
    assert json.loads((path / "bundle.json").read_text())["own"].keys() == {name}
    with pytest.raises(LuodiError, match=f"--trust {name}"):
        Bundle.load(path)
    assert Bundle.load(path, trust=(name,)).edits[-1].step == resolve("steps", name)
    (tmp_path / "trusted_step.py").write_text(OWN + "\n# changed\n")
    with pytest.raises(LuodiError, match="not the one this bundle was made with"):
        Bundle.load(path, trust=(name,))
    (tmp_path / "trusted_step.py").unlink()
    with pytest.raises(LuodiError, match="not the one this bundle was made with"):
        Bundle.load(path, trust=(name,))


def test_a_changed_file_is_refused_before_it_runs(table_bundle, tmp_path):
    """In processes of their own, where nothing of the file is loaded yet."""
    where, marker = own_file(tmp_path, "changed_step")
    path = edited_elsewhere(table_bundle, tmp_path, f"{where}:Same")
    marker.unlink()
    told = luodi("predict", str(path), "-", "--trust", f"{where}:Same", cwd=tmp_path, give="")
    assert told.returncode == 0 and marker.exists(), told.stderr
    marker.unlink()
    (tmp_path / "changed_step.py").write_text(OWN.replace("the file was run", "another text"))
    told = luodi("predict", str(path), "-", "--trust", f"{where}:Same", cwd=tmp_path, give="")
    assert told.returncode == 2 and "not the one this bundle was made with" in told.stderr and not marker.exists()


def edited_elsewhere(bundle: Path, folder: Path, step: str) -> Path:
    """A bundle after an own step, made in this process under the folder's name for the file."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        return edited(bundle, folder, step).save(folder / "bundle")
    finally:
        os.chdir(here)


# ---- kills ------------------------------------------------------------------------------------------------------

SAVER = '''
"""Forks a child for each line of standard input: it saves two bundles in turn until it is killed."""
import json, os, shutil, sys, time
from pathlib import Path

import torch
from luodi.core.bundle import Bundle

bundles = [Bundle.load(Path(path)) for path in sys.argv[1:]]


def say(text):
    os.write(1, f"{text}\\n".encode())  # one write: lines of two processes do not mix


def pause():
    say("paused")
    time.sleep(600)


def save_for_ever(path, stop):
    if stop is not None:
        kind, at, after = stop
        owner, name = {"rename": (Path, "rename"), "unlink": (os, "unlink"), "rmdir": (os, "rmdir")}[kind]
        original, seen = getattr(owner, name), [0]

        def watched(*args, **more):
            seen[0] += 1
            if seen[0] == at and not after:
                pause()
            result = original(*args, **more)
            if seen[0] == at and after:
                pause()
            return result

        setattr(owner, name, watched)
    for turn in range(1, 1_000_000):
        bundles[turn % 2].save(path)
    pause()


say("ready")
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        say(os.getpid())
        try:
            save_for_ever(Path(job["path"]), job["stop"])
        finally:
            say("fell through")
            os._exit(1)
    os.waitpid(child, 0)
    say("gone")
'''


class Saver:
    """A process that forks children which save until they are killed."""

    def __init__(self, *bundles: Path) -> None:
        command = [sys.executable, "-c", SAVER, *map(str, bundles)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=-1, stdout=-1, text=True, env=environment, start_new_session=True
        )
        self.child = 0
        assert self.line() == "ready"

    def line(self) -> str:
        return self.process.stdout.readline().strip()

    def kill(self, path: Path, *, seconds: float = 0.0, stop: Any = None) -> None:
        """Kills a child some time after it began, or when it stands at a point of `save`."""
        self.process.stdin.write(json.dumps({"path": str(path), "stop": stop}) + "\n")
        self.process.stdin.flush()
        self.child = int(self.line())
        if stop is not None:
            assert self.line() == "paused", f"{stop} is no point of save"
        time.sleep(seconds)
        os.kill(self.child, signal.SIGKILL)
        assert self.line() == "gone"
        self.child = 0

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def two_bundles(table_bundle, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("two")
    return table_bundle, edited(table_bundle, folder, {"prune": {"sparsity": 0.9}}).save(folder / "bundle")


@pytest.fixture(scope="module")
def saver(two_bundles):
    made = Saver(*two_bundles)
    yield made
    made.close()


def whole_or_absent(path: Path, two: tuple[Path, Path], *, was_there: bool) -> str:
    """Which of the two bundles is there, opened with all its checks; "absent" only if nothing was there before."""
    known = {store.peek(one)["digest"]: name for one, name in zip(two, "AB", strict=True)}
    try:
        bundle = Bundle.load(path)
    except LuodiError as error:
        assert not was_there and "is no bundle" in str(error), error
        return "absent"
    found = known[store.peek(path)["digest"]]
    assert_equal_bits(bundle.model, Bundle.load(two["AB".index(found)]).model)
    return found


def goes_on(path: Path, bundle: Path) -> None:
    """The next save works, and leaves nothing aside."""
    saved = Bundle.load(bundle).save(path)
    assert store.peek(saved)["digest"] == store.peek(bundle)["digest"]
    left = sorted(p.name for p in path.parent.iterdir())
    assert left == [path.name], left


def save_seconds(two: tuple[Path, Path], folder: Path) -> float:
    bundle = Bundle.load(two[0])
    bundle.save(folder / "timed")
    start = time.perf_counter()
    for _ in range(3):
        bundle.save(folder / "timed")
    return (time.perf_counter() - start) / 3


@pytest.mark.parametrize("existing", [True, False], ids=["over a bundle", "over nothing"])
def test_killed_at_random_moments(existing, saver, two_bundles, tmp_path):
    seeds = list(range(100 * existing, 100 * existing + 20))
    usual = save_seconds(two_bundles, tmp_path / "time")
    found = []
    for seed in seeds:
        path = tmp_path / str(seed) / "bundle"
        path.parent.mkdir()
        if existing:
            shutil.copytree(two_bundles[0], path)
        saver.kill(path, seconds=random.Random(seed).uniform(0, 3 * usual))
        found.append(whole_or_absent(path, two_bundles, was_there=existing))
        goes_on(path, two_bundles[1])
    print(f"\nseeds {seeds}: one save takes {usual * 1e3:.0f} ms; after the kills: {' '.join(found)}")


# (operation, which one, killed before or after it) -> what is found: A was there, B is being saved.
OVER_A_BUNDLE = [
    (("rename", 1, False), "A"),  # before the old one goes aside
    (("rename", 1, True), "A"),  # nothing is in place: the old one is found aside
    (("rename", 2, False), "A"),
    (("rename", 2, True), "B"),  # the new one is in, the old one still aside
    (("unlink", 1, False), "B"),  # while the old one is removed
    (("unlink", 1, True), "B"),
    (("unlink", 3, True), "B"),
    (("rmdir", 1, True), "B"),
    (("rmdir", 3, False), "B"),
    (("rename", 3, True), "B"),  # the second save: the old one of the first is gone
]
OVER_NOTHING = [(("rename", 1, False), "absent"), (("rename", 1, True), "B")]


@pytest.mark.parametrize(("stop", "expected"), OVER_A_BUNDLE, ids=lambda part: str(part))
def test_killed_around_the_rename(stop, expected, saver, two_bundles, tmp_path):
    path = tmp_path / "here" / "bundle"
    shutil.copytree(two_bundles[0], path)
    saver.kill(path, stop=stop)
    assert whole_or_absent(path, two_bundles, was_there=True) == expected
    assert whole_or_absent(path, two_bundles, was_there=True) == expected, "looking at it changes nothing"
    goes_on(path, two_bundles[0])


@pytest.mark.parametrize(("stop", "expected"), OVER_NOTHING, ids=lambda part: str(part))
def test_killed_around_the_first_rename(stop, expected, saver, two_bundles, tmp_path):
    path = tmp_path / "here" / "bundle"
    path.parent.mkdir()
    saver.kill(path, stop=stop)
    assert whole_or_absent(path, two_bundles, was_there=False) == expected
    goes_on(path, two_bundles[0])


def test_killed_twice_at_the_worst_moment(saver, two_bundles, tmp_path):
    """Between the renames, and again while the next save puts things right."""
    path = tmp_path / "here" / "bundle"
    shutil.copytree(two_bundles[0], path)
    for stop in (("rename", 1, True), ("rename", 1, False), ("rename", 1, True), ("rename", 1, True)):
        saver.kill(path, stop=stop)
        assert whole_or_absent(path, two_bundles, was_there=True) == "A"
    for stop in (("rename", 3, True), ("rmdir", 1, False), ("rename", 2, True)):
        saver.kill(path, stop=stop)
        assert whole_or_absent(path, two_bundles, was_there=True) == "B"
    goes_on(path, two_bundles[1])


def test_evidence_added_to_a_bundle_that_a_kill_left_aside(two_bundles, tmp_path):
    path = tmp_path / "here" / "bundle"
    shutil.copytree(two_bundles[0], path)
    path.rename(path.with_name("bundle.old"))
    one = Evidence(step=None, name="train", number=1, form="torch")
    store.add(path, (one,))
    assert Bundle.load(path).evidence == (one,)
    assert [p.name for p in path.parent.iterdir()] == ["bundle"]
