"""Limits in, steps out: what is tried, in which order, what is taken, and what is said when nothing fits."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import luodi, write_recipe
from small_data import SIDES, Run, table_bundle

from luodi.core import records, store
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.child import Nursery
from luodi.core.errors import LuodiError, Refused
from luodi.core.evidence import Change, Measure
from luodi.core.limits import Limits
from luodi.core.recipe import Recipe
from luodi.core.statistics import exact
from luodi.core.task import Exam
from luodi.core.thing import make
from luodi.tune.landing import choice
from luodi.tune.landing.choice import Chooser, judged, state_of
from luodi.tune.landing.guess import NOISE, PAIRS, Guess
from luodi.tune.landing.search import Search
from luodi.tune.landing.space import Chain, chains, offered, part
from luodi.tune.landing.trials import Trial, Trials


def steps(*values: Any) -> tuple[Any, ...]:
    return tuple(make("steps", value) for value in values)


ONNX, OPENVINO = ({"export": {"to": kind}} for kind in ("onnx", "openvino"))
STATIC = {"export": {"to": "onnx", "activations": "int8"}}


# ---- what can be tried ----------------------------------------------------------------------------------------------


def trained(tmp_path: Path) -> Bundle:
    bundle = table_bundle(SIDES, {"mlp": {"hidden": [64]}})
    return apply(make("steps", {"train": {"epochs": 8, "learning_rate": 0.02}}), bundle, Run(tmp_path))


def test_chains_are_what_the_facts_allow_each_set_once(tmp_path):
    bundle = trained(tmp_path)
    given = steps({"prune": {"sparsity": 0.5}}, {"prune": {"sparsity": 0.9}}, "quantize", ONNX, STATIC)
    found = [chain.parts for chain in chains(bundle, given, 2)]
    assert found[0] == ()
    floats = [(), ("prune",), ("prune sparsity=0.9",)]
    static = "export to=onnx activations=int8"
    wanted = [
        (*before, *after)
        for before in floats
        for after in [(), ("quantize",), ("export to=onnx",), ("quantize", "export to=onnx"), (static,)]
    ]
    assert sorted(found) == sorted(wanted), "static int8 wants a float model, nothing follows a form"
    assert len(list(chains(bundle, given, 1))) == len(
        [one for one in wanted if len({*one} - {"export to=onnx", static}) < 2]
    )
    assert [chain.parts for chain in chains(replace(bundle, facts=bundle.facts - {"float"}), given, 3)] == [
        (), ("export to=onnx",)
    ]  # fmt: skip


def test_every_runtime_and_step_says_what_it_offers():
    found, lacking = offered("cpu")
    named = {part(step) for step in found}
    assert {"quantize", "export to=onnx", "export to=openvino", "export to=openvino activations=int8"} <= named
    assert not lacking and not any("hugging_face" in name for name in named)
    assert len({Chain((step,)).key for step in found}) == len(found)


# ---- guessing -------------------------------------------------------------------------------------------------------


def test_a_guess_is_the_sum_of_what_was_seen():
    a, b = steps("quantize", ONNX)
    guess = Guess(1.0)
    means, deviations = guess.of([Chain(), Chain((a,)), Chain((a, b))])
    assert means.tolist() == [0, 0, 0]
    assert deviations == pytest.approx([0, (1 + PAIRS) ** 0.5, (2 + 4 * PAIRS) ** 0.5])
    guess.learn(Chain((a,)), -1.0)
    mean, deviation = (one[0] for one in guess.of([Chain((a,))]))
    own = 1 + PAIRS  # one thing seen once: the posterior of a Gaussian with that prior
    assert mean == pytest.approx(-own / (own + NOISE**2)) and deviation == pytest.approx(
        (own - own**2 / (own + NOISE**2)) ** 0.5
    )
    guess.learn(Chain((b,)), -0.5)
    (mean,), (deviation,) = guess.of([Chain((a, b))])
    assert mean == pytest.approx(-1.5, abs=0.3) and 0 < deviation < 1
    guess.learn(Chain((a, b)), -0.2)  # they get in each other's way
    assert guess.of([Chain((a, b))])[0][0] == pytest.approx(-0.2, abs=0.01)


def test_the_same_step_with_other_fields_tells_something():
    mild, strong, other = steps({"prune": {"sparsity": 0.5}}, {"prune": {"sparsity": 0.9}}, "quantize")
    guess = Guess(1.0)
    guess.learn(Chain((mild,)), 0.8)
    means = guess.of([Chain((strong,)), Chain((other,))])[0]
    assert 0.3 < means[0] < 0.6 and means[1] == pytest.approx(0)


# ---- choosing -------------------------------------------------------------------------------------------------------


def trial(name: str, loss: float = 0.0, half: float = 0.0, why: str = "", **costs: float) -> Trial:
    metric = Measure(value=0.9 - loss, low=0.9 - loss, high=0.9 - loss, count=100)
    figures = {key: exact(value) for key, value in costs.items()} | {"side.accuracy": metric}
    losses = {"side.accuracy": Change(value=loss, low=loss - half, high=loss + half)}
    return Trial(
        key=name, name=name, steps=[name], figures={} if why else figures, losses={} if why else losses, why=why
    )


def chooser(folder: Path, **limits: Any) -> Chooser:
    task: Any = table_bundle(SIDES, {"mlp": {}}).ready(Run(folder)).task
    return Chooser(task, Limits(**limits), folder)


def answers(folder: Path, name: str, wrong: int) -> None:
    """100 answers, of which the first are wrong."""
    truth = np.asarray(["up"] * 100, object)
    value = np.asarray(["down"] * wrong + ["up"] * (100 - wrong), object)
    sure = np.tile(np.float32([0.4, 0.6]), (100, 1))
    sure[:wrong] = [0.6, 0.4]
    columns = {"side.value": value, "side.truth": truth, "side.probabilities": sure}
    records.write(Exam(np.arange(100).astype(str), columns), folder / f"{name}.parquet")


def test_quality_first_then_time_then_size(tmp_path):
    choose = chooser(tmp_path, p50_ms=5, drop={"accuracy": 0.2})
    tried = [
        trial("best", 0.0, p50_ms=4.0, size_mb=4.0), trial("as good", 0.01, p50_ms=2.0, size_mb=2.0),
        trial("as fast and smaller", 0.01, p50_ms=2.03, size_mb=1.0), trial("worse", 0.15, p50_ms=0.1, size_mb=0.1),
        trial("late", 0.0, p50_ms=6.0, size_mb=0.1), trial("broken", why="it fell"),
    ]  # fmt: skip
    for name, wrong in {"best": 10, "as good": 11, "as fast and smaller": 11, "worse": 25}.items():
        answers(tmp_path, name, wrong)
    assert [one.name for one in choose.order(tried)] == ["as fast and smaller", "as good", "best", "worse"]
    assert state_of(tried[4], choose.limits) == "missed" and state_of(tried[5], choose.limits) == "failed"
    assert choose.worse(tried[3], tried[0]) and not choose.worse(tried[1], tried[0])


def test_what_is_not_shown_is_taken_only_where_nothing_is(tmp_path):
    choose = chooser(tmp_path, drop={"accuracy": 0.02})
    unsure, sure = trial("unsure", 0.01, 0.02, p50_ms=1.0), trial("sure", 0.01, 0.005, p50_ms=3.0)
    assert [one.state for one in judged(unsure, choose.limits)] == ["undecided"]
    assert [one.name for one in choose.order([unsure, sure])] == ["sure"]
    assert [one.name for one in choose.order([unsure])] == ["unsure"]


def test_no_limit_is_eased_and_the_one_in_the_way_is_named(tmp_path):
    choose = chooser(tmp_path, p50_ms=0.5, size_mb=1.0, drop={"accuracy": 0.02})
    tried = [
        trial("as it is", 0.0, p50_ms=4.0, size_mb=4.0), trial("small", 0.01, p50_ms=3.0, size_mb=0.9),
        trial("quick", 0.01, p50_ms=0.8, size_mb=3.0), trial("broken", why="it fell"),
    ]  # fmt: skip
    assert choose.order(tried) == []
    assert choose.nearest(tried).name == "quick", "0.6 and 2 times too much; small is 5 times too slow"
    short = choose.short(tried)
    assert [(one["limit"], one["reachable"]) for one in short] == [
        ("p50_ms", False), ("size_mb", True), ("drop.accuracy", True)
    ]  # fmt: skip
    assert choice.words(short) == [
        "p50_ms 0.5 is out of reach: the least was 0.8 (quick)", "with p50_ms 3 all limits are kept (small)"
    ]  # fmt: skip
    torn = chooser(tmp_path, p50_ms=1.0, size_mb=1.0)
    assert choice.words(torn.short(tried)) == [
        "each limit can be kept, but not all of them together", "with p50_ms 3 all limits are kept (small)",
        "with size_mb 3 all limits are kept (quick)",
    ]  # fmt: skip


# ---- searching ------------------------------------------------------------------------------------------------------


@dataclass
class Table:
    """A bench whose figures come from a table: each step changes time and loss by a factor and a term of its own."""

    limits: Limits
    effects: dict[str, tuple[float, float]]
    done: dict[str, Trial] = field(default_factory=dict)
    spent: float = 0.0

    def tried(self, chain: Chain, *, whole: bool = False) -> Trial:
        if chain.key not in self.done:
            changes = [self.effects[name] for name in chain.parts]
            ratio, loss = float(np.prod([one[0] for one in changes])), float(sum(one[1] for one in changes))
            self.done[chain.key] = trial(chain.key, loss, 1e-4, p50_ms=10 * ratio, size_mb=10 * ratio)
            self.spent += 1
        return self.done[chain.key]

    def confirmed(self, chain: Chain) -> Trial:
        return self.done[chain.key]


@pytest.mark.parametrize("seed", range(4))
def test_the_best_is_found_in_a_fraction_of_the_tries(tmp_path, seed):
    dice = np.random.default_rng(seed)
    pruned = steps(*({"prune": {"sparsity": one}} for one in (0.3, 0.5, 0.7, 0.9)))
    ranges = steps(*({"by_hand": {"epochs": one}} for one in (1, 2, 3)))
    forms = steps(ONNX, STATIC, OPENVINO, {"export": {"to": "openvino", "activations": "int8"}})
    every = [
        Chain(tuple(step for step in whole if step is not None))
        for whole in itertools.product((None, *pruned), (None, *ranges), (None, "quantize"), (None, *forms))
        if "quantize" not in whole
    ]
    effects = {
        name: (float(np.exp(-dice.uniform(0, 1.2))), float(dice.uniform(0, 0.02)))
        for name in {name for chain in every for name in chain.parts}
    }
    limits = Limits(p50_ms=3.0, drop={"side.accuracy": 0.03})
    whole: Any = Table(limits, effects)
    everything = [whole.tried(chain) for chain in every]
    choose = chooser(tmp_path, p50_ms=3.0, drop={"side.accuracy": 0.03})
    best = choose.order(everything)[0]
    bench: Any = Table(limits, effects)
    search = Search(bench, choose, every)
    while bench.spent < len(every):
        order = choose.order(list(bench.done.values()))
        if order and choose.loss(order[0]) <= choose.loss(best) + 0.002:
            break
        chain = search._next()
        assert chain is not None, "it must not stop before it has found what is as good"
        search._learn(chain, bench.tried(chain))
    assert bench.spent <= len(every) / 3, f"{bench.spent} of {len(every)}"


# ---- the whole ------------------------------------------------------------------------------------------------------


def landing(tmp_path: Path, bundle: Bundle, **fields: Any) -> tuple[Bundle, dict[str, Any]]:
    step = make("steps", {"land": {"seconds": 20, "threads": 1, **fields}})
    after = apply(step, bundle, Run(tmp_path / "work", rehearse=True))
    return after, dict(after.notes["land"])


def test_a_model_is_landed_and_the_recipe_found_gives_the_same_bits(tmp_path):
    out = tmp_path / "runs"
    recipe = {
        "name": "landed", "task": SIDES, "data": {"table": {"path": str(_table(tmp_path))}},
        "model": {"mlp": {"hidden": [64]}},
        "steps": [{"split": {"validation": 0.2, "test": 0.2}}, {"train": {"epochs": 8, "learning_rate": 0.02}},
                  {"land": {"seconds": 40, "depth": 1}}],
        "limits": {"size_mb": 0.5, "p50_ms": 50, "drop": {"accuracy": 0.2}}, "measure": {"seconds": 2, "calls": 100},
    }  # fmt: skip
    path = write_recipe(tmp_path / "landed.yaml", recipe)
    done = luodi("run", str(path), "--out", str(out))
    assert done.returncode == 0, done.stderr
    (last,) = [
        one for one in json.loads((out / "landed/bundle/evidence/evidence.json").read_text()) if one["number"] == 3
    ]
    note = last["notes"]["land"]
    assert note["landed"] and 2 <= note["tried"] <= note["of"] and "chains tried" in last["words"][0]
    assert {chain["state"] for chain in note["chains"]} <= {"met", "missed", "undecided", "failed"}
    found = Recipe.read(out / "landed/found.yaml")
    assert "land" not in found.step_names() and found.step_names()[:2] == ["split", "train"]
    digest = store.peek(out / "landed/bundle")["digest"]
    assert luodi("run", str(out / "landed/found.yaml"), "--out", str(tmp_path / "again")).returncode == 0
    assert store.peek(tmp_path / "again/landed/bundle")["digest"] == digest
    page = (out / "landed/report.html").read_text(encoding="utf-8")
    assert "What was tried to land it" in page and all(escape(chain["name"]) in page for chain in note["chains"])


def test_where_nothing_fits_the_nearest_is_left_and_the_exit_code_is_three(tmp_path):
    bundle, out = trained(tmp_path), tmp_path / "runs"
    path = bundle.replace(data=None).save(tmp_path / "made")
    done = luodi("land", str(path), "--limits", "p50_ms=0.0001,size_mb=50", "--seconds", "15", "--out", str(out),
                 "--set", "rows=false", "--set", "measure.seconds=1", "--set", "steps.land.depth=0")  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "p50_ms 0.0001 is out of reach: the least was" in done.stderr and "with p50_ms" in done.stderr
    assert "quality was NOT measured" in done.stdout.replace("\n", " ") or "NOT" in done.stdout
    (last, *_) = reversed(json.loads((out / "made-landed/bundle/evidence/evidence.json").read_text()))
    assert not last["notes"]["land"]["landed"] and last["notes"]["land"]["short"][0]["reachable"] is False


def test_what_cannot_be_judged_is_refused(tmp_path):
    bundle = trained(tmp_path)
    with pytest.raises(LuodiError, match=r"drop\.accuracy cannot be judged: its rows are not here"):
        landing(tmp_path, bundle.without_data(), limits={"drop": {"accuracy": 0.1}})
    with pytest.raises(Refused, match="there is nothing to keep to"):
        landing(tmp_path, bundle)
    path = bundle.replace(data=None).save(tmp_path / "made")
    done = luodi("land", str(path), "--limits", "p50=5")
    assert done.returncode == 2 and "did you mean 'p50_ms'?" in done.stderr
    assert "expected NAME=NUMBER" in luodi("land", str(path), "--limits", "p50_ms").stderr


def test_a_chain_that_fails_is_one_that_is_not_taken(tmp_path, monkeypatch):
    from luodi.export.export import Export

    def broken(self: Any, bundle: Bundle, run: Any) -> Bundle:
        raise ZeroDivisionError("a library fell over")

    monkeypatch.setattr(Export, "__call__", broken)
    _, note = landing(tmp_path, trained(tmp_path), limits={"p50_ms": 1000}, depth=0, seconds=300)
    failed = [chain for chain in note["chains"] if chain["state"] == "failed"]
    assert failed and failed[0]["why"] == "ZeroDivisionError: a library fell over"
    assert note["taken"] == "as it is"


def test_a_killed_search_goes_on_where_it_was(tmp_path):
    bundle = trained(tmp_path)
    run = Run(tmp_path / "work", rehearse=True)
    with Nursery() as nursery:
        bench = Trials(bundle, run, nursery, Limits(p50_ms=100), 1)
        one = bench.tried(Chain())
        two = bench.tried(Chain(steps("quantize")))
    with Nursery() as nursery:
        again = Trials(bundle, run, nursery, Limits(p50_ms=100), 1)
        assert again.done == {one.key: one, two.key: two}
        assert again.tried(Chain(steps("quantize"))) == two and nursery.process is None, "nothing was measured again"
        assert again.spent == pytest.approx(one.seconds + two.seconds)
    assert two.losses["side.accuracy"].high >= two.losses["side.accuracy"].low
    assert two.figures["size_mb"].value < one.figures["size_mb"].value


def test_a_run_killed_in_the_search_keeps_its_trials(tmp_path):
    recipe = {
        "name": "killed", "task": SIDES, "data": {"table": {"path": str(_table(tmp_path))}},
        "model": {"mlp": {"hidden": [64]}},
        "steps": [{"split": {"validation": 0.2, "test": 0.2}}, {"train": {"epochs": 2}},
                  {"land": {"seconds": 30, "depth": 1}}],
        "limits": {"p50_ms": 50}, "measure": {"seconds": 1, "calls": 40},
    }  # fmt: skip
    path = write_recipe(tmp_path / "killed.yaml", recipe)
    command = [sys.executable, "-m", "luodi", "run", str(path), "--out", str(tmp_path / "runs")]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    folder, ends = tmp_path / "runs/killed/steps", time.monotonic() + 240
    while not (found := sorted(folder.glob("*/work/trials/*.json"))) or len(found) < 2:
        assert process.poll() is None and time.monotonic() < ends
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {one.name: one.stat().st_mtime_ns for one in folder.glob("*/work/trials/*.json")}
    assert luodi("run", str(path), "--out", str(tmp_path / "runs")).returncode == 0
    after = {one.name: one for one in folder.glob("*/aside/trials/*.json")}
    assert kept.keys() <= after.keys() and len(kept) >= 2
    seconds = [json.loads(one.read_text())["seconds"] for one in after.values()]
    assert all(one > 0 for one in seconds)


def _table(folder: Path) -> Path:
    import csv

    path = folder / "table.csv"
    dice = np.random.default_rng(0)
    x = dice.normal(size=(300, 3))
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["x0", "x1", "x2", "side"])
        writer.writerows([*map(float, row), "up" if row.sum() > 0 else "down"] for row in x)
    return path
