"""The contract: every step of the catalog on every small system; works, or is refused with a reason in its nature.

`python tests/test_contract.py` writes docs/contract.md anew. A system is a fixture of conftest.py named `..._system`;
a step is found by the catalog. Neither is listed here; only settings that a step cannot go without are.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import conftest
import numpy as np
import pytest
from conftest import System, build, shas

from luodi.core import check, yaml
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.catalog import SLOTS, entries, resolve
from luodi.core.errors import LuodiError, Refused
from luodi.core.run import Run
from luodi.core.step import FACTS, Step
from luodi.core.thing import dump, make

PAGE = Path(__file__).parents[1] / "docs" / "contract.md"
COMMAND = "python tests/test_contract.py"

# What a step cannot go without, what makes it quick, and settings that are another technique under the same name.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "train": [
        {"epochs": 1, "batch_size": 64},
        {"epochs": 1, "batch_size": 64, "update": "sgd", "patience": 1, "listeners": ["layers"]},
    ],
    "by_hand": [{"epochs": 1, "batch_size": 64}],
    "split": [{}, {"near": "together"}],
    "clean": [
        {},
        {"on": "all", "near": "drop", "outliers": "drop", "labels": "off"},
        {"labels": "drop"},
        {"columns": "drop"},
    ],
    "sample": [{"share": 0.5}, {"how": "uniform"}, {"how": "stratified", "count": 100}],
    "balance": [
        {},
        {"how": "over"},
        {"how": "under"},
        {"how": "synthetic"},
        {"how": "augmented", "augments": [{"affine": {"degrees": 5}}]},
    ],
    "folds": [{"count": 2, "steps": [{"train": {"epochs": 1, "batch_size": 64}}]}],
    "merge_labels": [{"fewest": 40}],
    "mask_words": [{"words": ["even"]}],
    "pretrained_parts": [{"image": "efficientnet_lite0"}],
    "prune": [
        {},
        {"scope": "global"},
        {"by": "wanda", "rows": 16},
        {"by": "sparsegpt", "pattern": "2:4", "rows": 16},
        {"by": "corrected", "scope": "global", "rows": 16},
    ],
    "quantize": [
        {},
        {"activations": "int8"},
        {"weights": "bf16"},
        {"weights": "int4", "by": "gptq", "group": 16, "rows": 16},
        {"weights": "int3", "by": "awq", "rows": 16},
        {"weights": "int4", "by": "corrected", "grid": "asymmetric", "group": 16, "rows": 16},
    ],
    "factorize": [{"energy": 0.5}, {"energy": 0.9, "by": "inputs", "rows": 32}],
    "distil": [{"train": {"train": {"epochs": 1, "batch_size": 64}}}],
    "land": [{"seconds": 0.1, "depth": 0, "limits": {"size_mb": 1e6}}],
    "channels": [{"share": 0.5}, {"share": 0.5, "by": "taylor", "scope": "global", "rows": 16}],
    "lora": [{"rank": 2}, {"rank": 2, "variant": "dora"}],
    "pretrained": [{"weights": "efficientnet_lite0"}],
    "export": [
        {"to": to, "activations": a, "calibration": 64} for to in entries("runtimes") for a in ("float", "int8")
    ],
}
# Told in the table; the others only make a step quick.
TOLD = {
    "scope", "activations", "to", "update", "patience", "near", "on", "labels", "columns", "how", "variant", "by",
    "pattern", "weights",
}  # fmt: skip

VARIANTS = [{name: settings} for name in sorted(entries("steps")) for settings in SETTINGS.get(name, [{}])]
SYSTEMS = sorted(name for name in vars(conftest) if name.endswith("_system"))
STAGES = ("fresh", "split", "trained", "adapted")  # bundles a step may want to start from; `stage` gives them


def told(variant: dict[str, Any]) -> str:
    """A step with the settings that make it another technique."""
    ((name, settings),) = variant.items()
    parts = [
        f"{key}: {value}" for key, value in settings.items() if key in TOLD and value not in ("float", "layer", "plain")
    ]
    return f"{name} {{{', '.join(parts)}}}" if parts else name


pairs = pytest.mark.parametrize("which", SYSTEMS)
steps = pytest.mark.parametrize("variant", VARIANTS, ids=[told(variant) for variant in VARIANTS])


@dataclass(frozen=True)
class Outcome:
    """What came of one step on one system."""

    works: bool
    reason: str = ""


@pytest.fixture(scope="session")
def trials(request, tmp_path_factory) -> Trials:
    return Trials(request, tmp_path_factory.mktemp("contract"))


class Trials:
    """Every pair is tried once, however many tests ask for it."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self.request, self.folder = request, folder
        self.saved: dict[tuple[str, str], Path] = {}
        self.bundles: dict[tuple[str, str], Bundle] = {}
        self.outcomes: dict[tuple[str, str], Outcome] = {}

    def system(self, which: str) -> System:
        return self.request.getfixturevalue(which)

    def stage(self, which: str, stage: str) -> Bundle:
        """A bundle with its rows: before any step, after a split, after a training; its saved folder is `saved`."""
        key = (which, stage)
        if key not in self.bundles:
            before = {
                "fresh": (),
                "split": ("split",),
                "trained": ("split", {"train": {"epochs": 1, "batch_size": 64}}),
                "adapted": ("split", {"train": {"epochs": 1, "batch_size": 64}}, "lora"),
            }
            folder = self.folder / which / stage
            folder.mkdir(parents=True)
            self.bundles[key] = build(self.system(which), folder / "work", *before[stage])
            self.saved[key] = self.bundles[key].save(folder / "bundle")
        return self.bundles[key]

    def start(self, which: str, step: Step) -> str:
        """The first stage that has what the step needs."""
        for stage in STAGES:
            if problem(step, self.stage(which, stage)) is None:
                return stage
        return "none"

    def outcome(self, which: str, variant: dict[str, Any]) -> Outcome:
        key = (which, told(variant))
        if key not in self.outcomes:
            self.outcomes[key] = self._try(which, step_of(variant))
        return self.outcomes[key]

    def after_first(self, variant: dict[str, Any], folder: Path) -> Bundle:
        """The trained table model after one more step; after adapters if it needs them."""
        key = (told(variant), "after")
        if key not in self.bundles:
            (folder / "first").mkdir()
            step = step_of(variant)
            given = self.stage("table_system", self.start("table_system", step)).fork()
            self.bundles[key] = apply(step, given, Run(folder / "first"))
        return self.bundles[key]

    def _try(self, which: str, step: Step) -> Outcome:
        bundle = self.stage(which, "fresh")
        reason = step.objection(bundle.task, bundle.config)
        if reason:
            for stage in STAGES:
                given = self.stage(which, stage)
                facts, have = step.facts(given.facts), given.facts | given.task.gives
                whole = facts.needs <= have and not facts.excludes & have
                assert_refused(step, given, self.folder / "refused", reason if whole else "step 1")
            return Outcome(False, reason)
        stage = self.start(which, step)
        assert stage != "none", f"no stage of {STAGES} has what {step!r} needs: add one"
        given = self.stage(which, stage)
        after = self._works(step, given, self.saved[which, stage], which)
        assert_round_trip(after, self.folder / which / "saved" / told_name(step))
        return Outcome(True)

    def _works(self, step: Step, given: Bundle, saved: Path, which: str) -> Bundle:
        """The bundle after the step, which was given a fork: nothing that it was given has changed."""
        before, files, said = snapshot(given), shas(saved), dump(step)
        run = Run(self.folder / which / told_name(step), seed=3, scope=("contract",))
        run.out.mkdir(parents=True, exist_ok=True)
        owned = given.fork()
        frozen = {one.name: getattr(owned, one.name) for one in fields(owned) if one.name not in ("model", "helpers")}
        after = apply(step, owned, run)
        assert {name: getattr(owned, name) for name in frozen} == frozen, "a field of the given bundle was changed"
        assert shas(saved) == files, "the saved folder of the given bundle was changed"
        assert snapshot(given) == before and dump(step) == said
        facts = step.facts(given.facts | given.task.gives)
        assert facts.gives <= after.facts | after.task.gives, facts.gives - after.facts
        assert not (facts.ends - facts.gives) & after.facts, facts.ends & after.facts
        assert after.facts <= FACTS and facts.needs | facts.gives | facts.ends | facts.excludes <= FACTS
        json.dumps(dict(after.notes))
        return after


def told_name(step: Step) -> str:
    """A folder's name for a step with its settings."""
    return "".join(c if c.isalnum() else "-" for c in json.dumps(dump(step, short=True)))[:80]


def step_of(variant: Any) -> Step:
    made = resolve("steps", variant)
    assert isinstance(made, Step)
    return made


def problem(step: Step, bundle: Bundle) -> str | None:
    return check.problem(step, bundle.facts | bundle.task.gives, bundle.task, bundle.config, "here")


def snapshot(bundle: Bundle) -> Any:
    """All of a bundle, comparable: the bits of its weights, and every other field."""
    import torch

    state = bundle.model.state_dict() if bundle.model is not None else {}
    # As bytes: NumPy knows no bfloat16.
    bits = {name: tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes() for name, tensor in state.items()}
    rows = {name: rows.fingerprint for name, rows in bundle.data.splits.items()} if bundle.data else {}
    rest = replace(bundle, model=None, data=None, golden=None, helpers={})
    return bits, rows, rest, golden_bits(bundle)


def golden_bits(bundle: Bundle) -> Any:
    if bundle.golden is None:
        return None
    outputs = {form: {k: v.tobytes() for k, v in arrays.items()} for form, arrays in bundle.golden.outputs.items()}
    return bundle.golden.requests, bundle.golden.answers, outputs


def assert_refused(step: Step, bundle: Bundle, folder: Path, reason: str) -> None:
    """Refused before work: nothing is written, and what was given is as it was."""
    folder.mkdir(parents=True, exist_ok=True)
    before = snapshot(bundle)
    with pytest.raises(Refused) as caught:
        apply(step, bundle, Run(folder))
    assert reason in str(caught.value) and "step 1" in str(caught.value), caught.value
    assert not list(folder.iterdir()) and snapshot(bundle) == before


def assert_round_trip(bundle: Bundle, folder: Path) -> None:
    """Saved and loaded, it answers the same, and knows the same of itself."""
    again = Bundle.load(bundle.save(folder))
    assert again.task == bundle.task and again.edits == bundle.edits and again.serving == bundle.serving
    assert set(again.forms) == set(bundle.forms) and golden_bits(again) == golden_bits(bundle)
    assert again.facts == bundle.without_data().facts
    if bundle.model is None and not bundle.forms:
        assert again.data is not None and again.data.origin == bundle.data.origin
        return
    assert bundle.golden is not None
    requests = bundle.task.examples(5, seed=11)
    assert again.predictor()(requests) == bundle.predictor()(requests)
    if bundle.model is not None:
        arrays = bundle.task.encode(requests)
        for name, output in bundle.predictor("torch").forward(arrays).items():
            np.testing.assert_array_equal(again.predictor("torch").forward(arrays)[name], output)


# ---- config -------------------------------------------------------------------------------------------------------


@steps
def test_config(variant):
    """A step's fields are its config: JSON and YAML, short and full, frozen, nothing else taken."""
    step = step_of(variant)
    for short in (True, False):
        plain = dump(step, short=short)
        assert make("steps", json.loads(json.dumps(plain))) == step
        assert make("steps", yaml.parse(yaml.dump(plain))) == step
    (full,) = dump(step).values()
    assert set(full) == set(type(step).model_fields)
    for name in full:
        with pytest.raises(ValueError, match="frozen"):
            setattr(step, name, full[name])
    with pytest.raises(LuodiError, match="unknown key 'no_such_key'"):
        make("steps", {next(iter(variant)): {**full, "no_such_key": 1}})
    assert step.facts(frozenset()) is not None and hash(json.dumps(dump(step)))
    assert type(step).version >= 1


def test_every_variant_is_told_apart():
    names = [told(variant) for variant in VARIANTS]
    assert len(set(names)) == len(names) and set(entries("steps")) == {next(iter(variant)) for variant in VARIANTS}
    assert set(SETTINGS) <= set(entries("steps")), "settings of a step that is no more"


# ---- every step on every system -----------------------------------------------------------------------------------


@pairs
@steps
def test_step(variant, which, trials):
    """Works as its facts say, or is refused with its reason."""
    outcome = trials.outcome(which, variant)
    assert outcome.works or outcome.reason


@pairs
@steps
def test_what_is_missing_is_refused_before_work(variant, which, trials, tmp_path):
    step = step_of(variant)
    refused = 0
    for stage in STAGES:
        bundle = trials.stage(which, stage)
        facts = step.facts(bundle.facts | bundle.task.gives)
        missing = facts.needs - bundle.facts - bundle.task.gives
        if missing:
            first = next((fact for fact in check._MAKERS if fact in missing), min(missing))
            assert_refused(step, bundle, tmp_path / stage, f"needs {first!r}")
            refused += 1
        elif facts.excludes & bundle.facts:
            assert_refused(step, bundle, tmp_path / stage, "must not come after")
            refused += 1
    assert refused or not type(step).needs, "a step that needs something is refused somewhere"


# ---- one after the other --------------------------------------------------------------------------------------------

FAMILY = {name: entry.path.parent.name for name, entry in entries("steps").items()}
CHANGES = [variant for variant in VARIANTS if FAMILY[next(iter(variant))] != "data"
             # solve: a model that learns otherwise; land: chains of these
             and next(iter(variant)) not in ("train", "by_hand", "solve", "land")
           and variant.get("export", {"to": "onnx", "activations": "float"})["to"] == "onnx"]  # fmt: skip


@pytest.mark.parametrize("second", CHANGES, ids=told)
@pytest.mark.parametrize("first", CHANGES, ids=told)
def test_each_ordered_pair(first, second, trials, tmp_path):
    """On a trained table model: the second is refused before it works, or what it leaves comes back from the disk."""
    bundle = trials.after_first(first, tmp_path)
    step = step_of(second)
    wrong = problem(step, bundle)
    if wrong is not None:
        allowed = ("needs 'float'", "needs 'adapters'", "must not come after 'adapters'")
        (reason,) = [one for one in allowed if one in wrong]
        assert_refused(step, bundle, tmp_path / "refused", reason)
        return
    (tmp_path / "second").mkdir()
    after = apply(step, bundle.fork(), Run(tmp_path / "second"), 2)
    assert len(after.edits) >= len(bundle.edits) or "distil" in second, "only a student starts afresh"
    if "export" not in second:
        assert not after.forms and after.serving == "torch", "a changed model ends every form"
    assert_round_trip(after, tmp_path / "saved")


# ---- optional packages --------------------------------------------------------------------------------------------

HIDDEN = """
import importlib, json, sys
from pathlib import Path

hidden = set(sys.argv[1].split(","))


class Without:
    '''A finder that does not know some packages, as if they were not installed.'''
    def __init__(self, inner): self.inner = inner
    def __getattr__(self, name): return getattr(self.inner, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else self.inner.find_spec(name, path, target)


sys.meta_path = [Without(finder) for finder in sys.meta_path]
from luodi.core import catalog, check
from luodi.core.apply import apply, reopen
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError
from luodi.core.recipe import Recipe
from luodi.core.run import Run

said = {}
for slot in catalog.SLOTS:
    if slot not in ("models", "panels"):
        for name in catalog.entries(slot):
            catalog.load(slot, name)
for number, (variant, path, recipe) in enumerate(json.load(sys.stdin)):
    step = catalog.resolve("steps", variant)
    bundle = reopen(Bundle.load(Path(path)), Path(sys.argv[2]), Run(Path(sys.argv[3])))
    whole = Recipe.of(recipe)
    planned = check.problems(whole, whole.task, whole.model)
    out = Path(sys.argv[3]) / str(number)
    out.mkdir()
    try:
        apply(step, bundle, Run(out))
        said[number] = [planned, None]
    except LuodiError as error:
        said[number] = [planned, f"{type(error).__name__}: {error}"]
loaded = sorted(hidden & {name.partition(".")[0] for name in sys.modules})
print(json.dumps([said, loaded]))
"""


def optional_packages() -> list[str]:
    """Top-level modules of everything that an extra of pyproject.toml brings."""
    import re
    import tomllib
    from importlib.metadata import packages_distributions

    whole = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[\[<>=~ ]", one)[0].lower() for one in whole["dependencies"]}
    wanted = {
        re.split(r"[\[<>=~ ]", one)[0].lower() for group in whole["optional-dependencies"].values() for one in group
    }
    tools = {"pytest", "ruff", "ty", "luodi"}
    names = packages_distributions().items()
    return sorted(top for top, homes in names if {h.lower() for h in homes} & (wanted - needed - tools))


def test_without_optional_packages(trials, cache, tmp_path):
    """Every entry of the catalog is imported; a step that wants an extra names it, in the plan and by itself."""
    hidden = optional_packages()
    assert {"onnx", "onnxruntime", "openvino", "fastapi", "plotly", "sklearn", "datasets"} <= set(hidden)
    jobs, expected = [], []
    system = trials.system("table_system")
    possible = [variant for variant in VARIANTS if trials.outcome("table_system", variant).works]
    for variant in possible:
        step = step_of(variant)
        stage = trials.start("table_system", step)
        trials.stage("table_system", stage)
        before = {
            "fresh": [],
            "split": ["split"],
            "trained": ["split", {"train": {"epochs": 1}}],
            "adapted": ["split", {"train": {"epochs": 1}}, "lora"],
        }[stage]
        recipe = system.recipe(*before, variant)
        jobs.append([variant, str(trials.saved["table_system", stage]), recipe])
        expected.append(sorted(set(step.packages().values())))
    command = [sys.executable, "-c", HIDDEN, ",".join(hidden), str(cache), str(tmp_path)]
    done = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said, loaded = json.loads(done.stdout.splitlines()[-1])
    assert loaded == []
    assert any(expected), "some steps want an extra"
    for number, extras in enumerate(expected):
        planned, alone = said[str(number)]
        name = told(possible[number])
        assert [one for one in planned if "extra" in one] == [
            f"the extra {extra!r} is not installed: pip install 'luodi[{extra}]'" for extra in extras
        ], name
        if extras:
            assert alone is not None and any(f"pip install 'luodi[{extra}]'" in alone for extra in extras), (
                name,
                alone,
            )
        else:
            assert alone is None, (name, alone)


# ---- the table ----------------------------------------------------------------------------------------------------


def page(trials: Trials) -> str:
    """docs/contract.md: a row a step, a column a system, the reasons below."""
    columns = [trials.system(which).name for which in SYSTEMS]
    lines = [
        "# The contract",
        "",
        "Every step of the catalog on every kind of task, as `tests/test_contract.py` runs them: config round trip,",
        "frozen, what it was given untouched, its facts true afterwards, saved and loaded with the same answers,",
        "refused before work when something is missing, and without optional packages refused with the extra's name.",
        "",
        f"| step | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    reasons: list[str] = []
    for variant in VARIANTS:
        cells = []
        for which in SYSTEMS:
            outcome = trials.outcome(which, variant)
            if not outcome.works and outcome.reason not in reasons:
                reasons.append(outcome.reason)
            cells.append("works" if outcome.works else f"refused ({reasons.index(outcome.reason) + 1})")
        lines.append(f"| `{told(variant)}` | {' | '.join(cells)} |")
    lines += ["", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))]
    lines += ["", f"{summary(trials)}. Written by `{COMMAND}`."]
    return "\n".join(lines) + "\n"


def summary(trials: Trials) -> str:
    outcomes = [trials.outcome(which, variant) for variant in VARIANTS for which in SYSTEMS]
    count = Counter("works" if one.works else "refused" for one in outcomes)
    skipped = len(VARIANTS) * len(SYSTEMS) - len(outcomes)
    built = {entry.path.parent.name for entry in entries("steps").values()}
    without = [family for family in SLOTS["steps"] if family not in built]
    unbuilt = f"; not built yet: the steps of {', '.join(without)}" if without else ""
    return f"{count['works']} work, {count['refused']} refused, {skipped} skipped{unbuilt}"


def test_the_table_in_the_docs_is_current(trials, request):
    text = page(trials)
    print(f"\ncontract: {summary(trials)}")
    assert " 0 skipped" in text and all(
        len(trials.outcome(which, variant).reason) > 10 or trials.outcome(which, variant).works
        for variant in VARIANTS
        for which in SYSTEMS
    )
    if getattr(request.config, "writes_the_contract", False):
        PAGE.write_text(text, encoding="utf-8")
    have = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    assert have == text, f"docs/contract.md is not what the contract gives today; write it anew: {COMMAND}"


class Writer:
    """Tells the test above to write the page."""

    @staticmethod
    def pytest_configure(config: pytest.Config) -> None:
        config.writes_the_contract = True  # ty: ignore[unresolved-attribute]


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-s", "-k", "table_in_the_docs", "--timeout", "3600"], plugins=[Writer()]))
