"""PyTorch classes made elsewhere: equal to the original, opened only if trusted by name, through every other step."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from conftest import files_of, luodi, reseal, write_recipe
from made_elsewhere import NET, TASK
from safetensors.torch import load_file, save_file

from luodi.adopt.torch_module import adopt
from luodi.core import keys, parity, store
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.errors import LuodiError, MissingExtra
from luodi.core.run import Run

NAME = "./net.py:Net"
STUBBORN = '''
import torch
from torch import nn


class Counted(nn.Module):
    """Its layers follow from numbers in tensors, which there are none of on the meta device."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, int(torch.ones(3).sum()))

    def forward(self, x):
        return self.layer(x)


class Hidden(nn.Module):
    """It keeps a tensor that is neither parameter nor buffer, so that no file holds it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 3)
        self.plain = torch.arange(3.0)

    def forward(self, x):
        return self.layer(x) + self.plain
'''
ONE = {"supervised": {"inputs": {"x": {"number": {"normalize": "none"}}},
                      "targets": {"kind": {"category": {"values": ["a", "b", "c"]}}}}}  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A folder with somebody's network and its weights, which is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    torch.save(made("Net").state_dict(), "net.pt")
    return tmp_path


def made(name: str, **arguments: int) -> torch.nn.Module:
    """The network with random weights, made as its author would."""
    space: dict = {}
    exec(NET, space)
    Path("imported.txt").unlink()
    torch.default_generator.manual_seed(3)
    return space[name](**arguments).eval()


def answer(network: torch.nn.Module, bundle: Bundle) -> tuple[dict, dict]:
    """What the original and the bundle give for made-up requests."""
    arrays = bundle.task.encode(bundle.task.examples(9, seed=4))
    with torch.inference_mode():
        kind, weight = network(*(torch.as_tensor(arrays[name]) for name in ("picture", "age")))
    return {"kind": kind.numpy(), "weight": weight[:, None].numpy()}, bundle.predictor().forward(arrays)


def test_equal_to_the_original_with_all_its_tensors(home):
    report = adopt(NAME, Path("net.pt"), {"width": 8}, TASK, Path("bundle"))
    assert report["drift"] == report["arrays_difference"] == 0.0
    assert report["parameters"] == sum(p.numel() for p in made("Net").parameters())
    assert report["outputs"] == {"kind": "category (3,)", "weight": "number (1,)"}
    bundle = Bundle.load(Path("bundle"), trust=(NAME,))
    wanted, got = answer(made("Net"), bundle)
    assert parity.drift(got, wanted) == 0.0 and wanted["kind"].std() > 0.01
    stored = load_file("bundle/weights.safetensors")
    assert stored.keys() == {f"network.{name}" for name in made("Net").state_dict()} | {"network.grid"}
    assert bundle.adopted["files"].keys() == {"net.pt", NAME}
    assert not [name for name in files_of(home / "bundle") if name.endswith((".pt", ".py", ".pkl"))]


def test_a_stranger_s_bundle_imports_nothing_before_it_is_trusted(home):
    adopt(NAME, Path("net.pt"), {}, TASK, Path("bundle"))
    Path("imported.txt").unlink()
    request = json.dumps({"picture": [[0, 255], [255, 0]], "age": 31})
    refused = luodi("predict", "bundle", "-", give=request, cwd=home)
    assert refused.returncode == 2
    assert f"{NAME} is code outside luodi; it runs only if you trust it: --trust {NAME}" in refused.stderr
    assert not Path("imported.txt").exists()
    answered = luodi("predict", "bundle", "-", "--trust", NAME, give=request, cwd=home)
    assert answered.returncode == 0, answered.stderr
    assert '"probabilities"' in answered.stdout and Path("imported.txt").exists()
    Path("imported.txt").unlink()
    Path("net.py").write_text(NET.replace("0.1 * age", "0.2 * age"))
    changed = luodi("predict", "bundle", "-", "--trust", NAME, give=request, cwd=home)
    assert changed.returncode == 2 and "the file is not the one this bundle was made with" in changed.stderr
    assert not Path("imported.txt").exists()


def test_the_name_cannot_be_hidden_from_the_manifest(home):
    """A forger who leaves the name out of `own`, seal made anew, is refused all the same."""
    adopt(NAME, Path("net.pt"), {}, TASK, Path("bundle"))
    reseal(home / "bundle", lambda head: head.update(own={}))
    with pytest.raises(LuodiError, match="code outside luodi"):
        Bundle.load(Path("bundle"))
    with pytest.raises(LuodiError, match="not the one"):
        Bundle.load(Path("bundle"), trust=(NAME,))
    with pytest.raises(LuodiError, match="expected an import path"):
        resolve("models", {"foreign": {"network": "os", "arguments": {}, "takes": [], "gives": {}}})


def test_a_class_of_an_installed_package_and_named_outputs(home, monkeypatch):
    package = home / "elsewhere" / "somebody"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text(NET)
    monkeypatch.syspath_prepend(str(home / "elsewhere"))
    adopt("somebody.net:Named", Path("net.pt"), {}, TASK, Path("bundle"))
    head = store.peek(Path("bundle"))
    assert head["config"]["foreign"]["gives"] == {"kind": "kind", "weight": "weight"}
    bundle = Bundle.load(Path("bundle"), trust=("somebody.net:Named",))
    wanted, got = answer(made("Net"), bundle)
    assert parity.drift(got, wanted) == 0.0
    monkeypatch.delitem(sys.modules, "somebody.net")


def test_state_dicts_as_people_keep_them(home):
    state = made("Net").state_dict()
    save_file({name: tensor.half() for name, tensor in state.items()}, "half.safetensors")
    assert "float16 are float32" in " ".join(adopt(NAME, Path("half.safetensors"), {}, TASK, Path("half"))["notes"])
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": t for name, t in state.items()}}, "last.ckpt")
    notes = " ".join(adopt(NAME, Path("last.ckpt"), {}, TASK, Path("last"))["notes"])
    assert "under 'state_dict'" in notes and "'module.' was taken off" in notes
    adopt(NAME, Path("net.pt"), {}, TASK, Path("plain"))
    one, other = (load_file(f"{name}/weights.safetensors") for name in ("last", "plain"))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_refused_weights(home):
    class Attack:
        def __reduce__(self) -> tuple:
            return Path.write_text, (Path("attacked.txt"), "code ran")

    state = made("Net").state_dict()
    torch.save({"net": Attack()}, "attack.pt")
    torch.save({"a": 1}, "none.pt")
    torch.save({name.replace("kind", "sort"): tensor for name, tensor in state.items()}, "renamed.pt")
    torch.save({**state, "more": torch.zeros(2)}, "more.pt")
    wrong = {
        "attack.pt": "cannot be read as plain tensors",
        "none.pt": "holds no state dict: not a tensor under a",
        "renamed.pt": r"kind.weight is missing; the nearest name in the file is sort.weight",
        "more.pt": "has more, which the model does not",
        "net.onnx": "no file",
        "net.py": r"weights are a .safetensors file",
    }
    for file, message in wrong.items():
        with pytest.raises(LuodiError, match=message):
            adopt(NAME, Path(file), {}, TASK, Path("bundle"))
    assert not Path("attacked.txt").exists()
    with pytest.raises(LuodiError, match=r"conv.weight is \(8, 1, 3, 3\) in the file, the model wants \(4, 1, 3, 3\)"):
        adopt(NAME, Path("net.pt"), {"width": 4}, TASK, Path("bundle"))
    assert not Path("bundle").exists()


def changed_task(side: str, column: str, field: object) -> dict:
    task = json.loads(json.dumps(TASK))
    task["supervised"][side][column] = field
    return task


def test_refused_classes_and_tasks(home):
    weights = Path("net.pt")
    reverse = json.loads(json.dumps(TASK))
    reverse["supervised"]["inputs"] = dict(reversed(reverse["supervised"]["inputs"].items()))
    one_too_many = changed_task("targets", "third", {"number": {"normalize": "none"}})
    cases = [
        ("./nett.py:Net", {}, TASK, "no file"),
        ("./net.py:Nett", {}, TASK, "did you mean 'Net'"),
        ("nowhere.net:Net", {}, TASK, "cannot import nowhere"),
        ("./net.py:not_a_module", {}, TASK, "makes a int, not a torch.nn.Module"),
        (NAME, {"widht": 8}, TASK, "cannot be made with the arguments"),
        ("./net.py:Soft", {}, TASK, "gives probabilities for kind"),
        (NAME, {}, reverse, "its forward cannot take"),
        (NAME, {}, one_too_many, "one tensor for each target"),
        (
            NAME,
            {},
            changed_task("targets", "kind", {"category": {"values": ["a", "b"]}}),
            r"gives \(3,\) a row for kind",
        ),
        (NAME, {}, changed_task("targets", "kind", "category"), "open are kind: a category needs at least one label"),
        (NAME, {}, changed_task("inputs", "age", "number"), "open are age: mean, scale"),
        (
            NAME,
            {},
            changed_task("inputs", "picture", {"image": {"size": 28, "channels": 1}}),
            "open are picture: mean, std",
        ),
    ]
    for path, arguments, task, message in cases:
        with pytest.raises(LuodiError, match=message):
            adopt(path, weights, arguments, task, Path("bundle"))
    assert not Path("bundle").exists()


@pytest.mark.parametrize("name", ("Counted", "Hidden"))
def test_a_class_that_cannot_be_opened_as_a_bundle_is(home, name):
    Path("stubborn.py").write_text(STUBBORN)
    save_file({"layer.weight": torch.ones(3, 1), "layer.bias": torch.zeros(3)}, "w.safetensors")
    with pytest.raises(LuodiError, match="on torch's meta device"):
        adopt(f"./stubborn.py:{name}", Path("w.safetensors"), {}, ONE, Path("bundle"))
    assert not Path("bundle").exists()


def test_pruned_quantised_exported(home):
    adopt(NAME, Path("net.pt"), {}, TASK, Path("bundle"))
    bundle = Bundle.load(Path("bundle"), trust=(NAME,))
    assert "net.py" in keys.sources_of([bundle.config]), "a changed network is run again"
    arrays = bundle.task.encode(bundle.task.examples(6, seed=9))
    for number, said in enumerate(({"prune": {"sparsity": 0.5}}, "quantize", {"export": {"to": "onnx"}})):
        out = home / str(number)
        out.mkdir()
        apply(resolve("steps", said), bundle, Run(out / "work"), number + 1).save(out / "bundle")
        bundle = Bundle.load(out / "bundle", trust=(NAME,))
    assert {type(bundle.model.get_submodule(f"network.{n}")).__name__ for n in ("conv", "kind")} == {
        "Int8Conv",
        "Int8Linear",
    }
    alone = Bundle.load(home / "2" / "bundle", form="onnx", trust=(NAME,))
    assert parity.drift(alone.predictor("onnx").forward(arrays), bundle.predictor("torch").forward(arrays)) < 1e-4


def test_the_command_line_imports_and_runs(home):
    write_recipe(home / "task.yaml", TASK)
    words = ("import", NAME, "--weights", "net.pt", "--task", "task.yaml", "--arguments", '{"width": 8}', "--out", "b")
    imported = luodi(*words, "--json", cwd=home)
    assert imported.returncode == 0, imported.stderr
    assert json.loads(imported.stdout)["drift"] == 0.0
    recipe = {
        "name": "run", "from": "b", "device": "cpu", "measure": {"seconds": 0.2, "calls": 20, "resamples": 100},
        "steps": [{"prune": {"sparsity": 0.5}}, {"export": {"to": "onnx"}}],
    }  # fmt: skip
    write_recipe(home / "recipe.yaml", recipe)
    refused = luodi("run", "recipe.yaml", cwd=home)
    assert refused.returncode == 2 and "--trust" in refused.stderr
    run = luodi("run", "recipe.yaml", "--trust", NAME, cwd=home)
    assert run.returncode == 0, run.stderr
    last = Bundle.load(home / "runs" / "run", form="onnx", trust=(NAME,))
    assert last.adopted["source"] == NAME
    assert [one.name for one in last.evidence] == ["start", "prune", "export"]
    assert all(one.measures["p50_ms"].value > 0 for one in last.evidence)


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    made = resolve("models", {"pretrained_image": {"architecture": "ViTForImageClassification", "config": {}}})
    with pytest.raises(MissingExtra, match=r"pip install 'luodi\[hub\]'"):
        made.build({}, {})
