"""Every step that the catalog finds, in every variant, on every task: one suite, one contract.

`python tests/test_contract.py` writes the table of what works and what is refused to docs/contract.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import System, build, shas

from luodi.core import catalog, check, yaml
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.errors import Refused
from luodi.core.run import Run
from luodi.core.step import NOT_STORED, Step
from luodi.core.thing import WrongThing, dump, make

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "contract.md"

# How a step is tried: as its name alone, unless it needs fields or has arithmetic of its own.
VARIANTS: dict[str, list[Any]] = {
    "train": [{"train": {"epochs": 1}}, {"train": {"epochs": 1, "update": "sgd", "patience": 1}}],
    "by_hand": [{"by_hand": {"epochs": 1}}],
    "prune": [{"prune": {"sparsity": 0.5}}, {"prune": {"sparsity": 0.5, "scope": "global"}}],
    "quantize": ["quantize", {"quantize": {"activations": "int8"}}],
    "export": [
        {"export": {"to": runtime, "activations": activations}}
        for runtime in sorted(catalog.entries("runtimes"))
        for activations in ("float", "int8")
    ],
}
# Packages of the extras, hidden to see a step refuse with the extra's name.
HIDDEN = ("onnx", "onnxruntime", "onnxscript", "openvino", "nncf")
SYSTEMS = ("digits_system", "flat_digits_system", "table_system")
TRIED = [variant for name in sorted(catalog.entries("steps")) for variant in VARIANTS.get(name, [name])]


def name_of(variant: Any) -> str:
    return (
        variant if isinstance(variant, str) else json.dumps(variant).replace('"', "").replace("{", "").replace("}", "")
    )


def step_of(variant: Any) -> Step:
    step = make("steps", variant)
    assert isinstance(step, Step)
    return step


def reason(step: Step, system: System) -> str | None:
    """Why the step cannot do this task or model at all: a reason in the nature of things."""
    fresh = system.fresh()
    return step.objection(fresh.task, fresh.config)


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """A split, briefly trained bundle of every system; each test forks it."""
    made = {}
    for name in SYSTEMS:
        steps = ("split", {"train": {"epochs": 1, "batch_size": 64, "learning_rate": 0.01}})
        made[name] = build(request.getfixturevalue(name), tmp_path_factory.mktemp(name), *steps)
    return made


@pytest.mark.parametrize("variant", TRIED, ids=name_of)
def test_a_step_is_its_fields(variant: Any) -> None:
    step = step_of(variant)
    for short in (True, False):
        said = dump(step, short=short)
        assert make("steps", json.loads(json.dumps(said))) == step
        assert make("steps", yaml.parse(yaml.dump(said))) == step
    with pytest.raises(ValueError, match="frozen"):
        step.version_ = 1  # type: ignore[attr-defined]
    with pytest.raises(WrongThing, match="unknown key"):
        make("steps", {next(iter(dump(step))): {"no_such_field": 1}})


@pytest.mark.parametrize("system_name", SYSTEMS)
@pytest.mark.parametrize("variant", TRIED, ids=name_of)
def test_a_step_keeps_the_contract(
    variant: Any, system_name: str, trained: dict[str, Bundle], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    step, system = step_of(variant), request.getfixturevalue(system_name)
    before = trained[system_name].fork()
    have = before.facts | before.task.gives
    if why := reason(step, system):
        assert len(why.split()) >= 5, "a refusal says its reason"
        with pytest.raises(Refused, match="not possible here"):
            apply(step, before, Run(tmp_path))
        assert not list(tmp_path.iterdir()), "a refused step wrote something"
        return
    if step.facts(have).excludes & have:
        before, have = system.fresh(), frozenset({"rows"}) | system.fresh().task.gives
    held = before.fork().save(tmp_path / "before") if before.model is not None else None
    saved = shas(held) if held else {}
    kept = {f.name: getattr(before, f.name) for f in fields(before) if f.name != "model"}
    (tmp_path / "work").mkdir()
    after = apply(step, before, Run(tmp_path / "work", seed=3))
    assert {f: getattr(before, f) for f in kept} == kept, "a field of the given bundle changed"
    assert not held or shas(held) == saved, "the saved parent changed"
    assert step.facts(have).gives <= after.facts | after.task.gives
    assert not step.facts(have).ends & after.facts - step.facts(have).gives
    comes_back_the_same(after, tmp_path)


def comes_back_the_same(bundle: Bundle, folder: Path) -> None:
    """Saved and loaded, a bundle has the same facts and answers."""
    again = Bundle.load(bundle.save(folder / "after"))
    assert again.facts == bundle.facts - NOT_STORED
    assert [dump(edit.step) for edit in again.edits] == [dump(edit.step) for edit in bundle.edits]
    assert again.serving == bundle.serving
    if bundle.golden is None:
        return
    requests = bundle.task.examples(8, seed=5)
    arrays = bundle.task.encode(requests)
    for name in (["torch"] if bundle.model is not None else []) + list(bundle.forms):
        was, now = bundle.predictor(name).forward(arrays), again.predictor(name).forward(arrays)
        for key in was:
            np.testing.assert_array_equal(was[key], now[key], err_msg=f"{name} {key}")


@pytest.mark.parametrize("variant", TRIED, ids=name_of)
def test_a_step_refuses_before_work(variant: Any, table_system: System, tmp_path: Path) -> None:
    step, bare = step_of(variant), table_system.fresh().replace(data=None, facts=frozenset())
    needs = step.facts(bare.task.gives).needs - bare.task.gives
    assert needs, f"{name_of(variant)} needs nothing, not even rows"
    with pytest.raises(Refused, match="needs"):
        apply(step, bare, Run(tmp_path / "work"))
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("variant", TRIED, ids=name_of)
def test_without_extras_a_step_imports_and_names_the_extra(variant: Any) -> None:
    step = step_of(variant)
    wanted = {package: extra for package, extra in step.packages().items() if package in HIDDEN}
    code = (
        "import importlib.util, json, sys\n"
        f"hidden = {HIDDEN!r}\n"
        "real = importlib.util.find_spec\n"
        "class Hider:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in hidden: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hider())\n"
        "importlib.util.find_spec = lambda name, package=None: None if name in hidden else real(name, package)\n"
        "from luodi.core import catalog\n"
        "from luodi.core.thing import make\n"
        f"step = make('steps', json.loads({json.dumps(json.dumps(variant))}))\n"
        "print(json.dumps(catalog.missing(step.packages())))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == sorted(set(wanted.values()))


SMALL = ["prune", "quantize", {"quantize": {"activations": "int8"}}, {"export": {"to": "onnx"}}]


@pytest.mark.parametrize("second", SMALL, ids=name_of)
@pytest.mark.parametrize("first", SMALL, ids=name_of)
def test_steps_in_pairs(first: Any, second: Any, trained: dict[str, Bundle], tmp_path: Path) -> None:
    """Each ordered pair is refused before the second one works, or comes back from the disk with the same answers."""
    bundle = trained["table_system"].fork()
    for number, variant in enumerate((first, second), 1):
        work = tmp_path / str(number)
        work.mkdir()
        step = step_of(variant)
        have = bundle.facts | bundle.task.gives
        if wrong := check.problem(step, have, bundle.task, bundle.config, f"step {number}"):
            assert number == 2 and "'float'" in wrong, wrong
            with pytest.raises(Refused):
                apply(step, bundle, Run(work), number)
            return
        bundle = apply(step, bundle, Run(work), number)
    comes_back_the_same(replace(bundle, data=None), tmp_path)


def table() -> str:
    """What works and what is refused, as Markdown."""
    systems = {
        "images, convnet": ("convnet", {"image": {"image": {"size": 28, "channels": 1}}}),
        "images, mlp": ("mlp", {"image": {"image": {"size": 28, "channels": 1}}}),
        "table, mlp": ("mlp", {"width": "number", "height": "number"}),
    }
    lines = [
        "# The contract",
        "",
        "Every step on every task, made by `python tests/test_contract.py` and checked by the tests.",
    ]
    lines += ["", "| step | " + " | ".join(systems) + " |", "|---|" + "---|" * len(systems)]
    counts = {"works": 0, "refused": 0}
    reasons = []
    for variant in TRIED:
        cells = []
        for name, (model, inputs) in systems.items():
            task: Any = make("tasks", {"supervised": {"inputs": inputs, "targets": {"label": "category"}}})
            why = step_of(variant).objection(task, make("models", model))  # type: ignore[arg-type]
            counts["refused" if why else "works"] += 1
            cells.append("refused" if why else "works")
            reasons += [f"- `{name_of(variant)}` on {name}: {why}"] if why else []
        lines.append(f"| `{name_of(variant)}` | " + " | ".join(cells) + " |")
    skipped = len(TRIED) * len(systems) - sum(counts.values())
    full = {entry.path.parent.name for entry in catalog.entries("steps").values()}
    unbuilt = [family for family in catalog.SLOTS["steps"] if family not in full]
    said = f"Works {counts['works']}, refused {counts['refused']}, skipped {skipped}."
    lines += ["", f"{said} Not built yet: the steps of {', '.join(unbuilt)}." if unbuilt else said, ""]
    return "\n".join([*lines, *(["Refusals:", "", *reasons, ""] if reasons else [])])


def test_the_table_is_current() -> None:
    assert TABLE.read_text(encoding="utf-8") == table(), "run: python tests/test_contract.py"


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
    print(next(line for line in table().splitlines() if line.startswith("Works")))
