"""Rivals: other recipes on the same rows, in the one table, with the paired difference to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import System, quickly, write_recipe

from luodi.command.planning import plan_recipe
from luodi.core import engine, rivals
from luodi.core.bundle import Bundle
from luodi.core.child import Nursery
from luodi.core.errors import LuodiError, Refused
from luodi.core.evidence import Change, Measure, faced
from luodi.core.recipe import Recipe
from luodi.core.words import against
from luodi.report.card import card
from luodi.report.page import build
from luodi.report.table import table_of

SPLIT = {"split": {"validation": 0.1, "test": 0.3}}
TRAIN = {"train": {"epochs": 3, "batch_size": 32, "learning_rate": 0.01}}
MEASURE = {"seconds": 0.2, "calls": 20, "resamples": 100}
WEAK = {"model": "constant", "steps": [TRAIN]}
LONGER = {"steps": [{"train": {"epochs": 4, "batch_size": 32, "learning_rate": 0.01}}]}


def plain_recipe(system: System, against: dict[str, Any], *steps: Any) -> dict[str, Any]:
    return system.recipe(*(steps or (SPLIT, TRAIN, "prune")), measure={**MEASURE, "against": against})


def recipe_of(system: System, against: dict[str, Any], *steps: Any) -> Recipe:
    return Recipe.of(plain_recipe(system, against, *steps))


@pytest.fixture(scope="module")
def compared(
    table_system: System, cache: Path, tmp_path_factory: pytest.TempPathFactory, shared_nursery: Nursery
) -> engine.Result:
    recipe = recipe_of(table_system, {"weak": WEAK, "longer": LONGER})
    with quickly(shared_nursery):
        return engine.run(recipe, out=tmp_path_factory.mktemp("runs"), cache=cache)


def right(folder: Path, file: str) -> dict[str, bool]:
    """Row -> whether it was answered right."""
    from luodi.core import records

    found = records.read(folder / "records" / file)
    return dict(zip(found.ids, found.columns["diagnosis.value"] == found.columns["diagnosis.truth"], strict=True))


def streamed(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    return [one for line in lines if (one := json.loads(line))["event"] == "step"]


def test_a_rival_is_in_the_table_with_the_paired_difference(compared: engine.Result) -> None:
    weak, longer = faced(compared.evidence)
    assert (weak.name, longer.name) == ("weak", "longer") and weak.rows == compared.evidence[-1].rows
    mine, theirs = (right(compared.folder, one.records) for one in (compared.evidence[-1], weak))
    assert mine.keys() == theirs.keys()
    apart = np.mean([float(mine[row]) - float(theirs[row]) for row in mine])
    found = compared.evidence[-1].notes["against"]["weak"]
    change = found["difference"]["diagnosis.accuracy"]["change"]
    assert change["value"] == pytest.approx(apart) and found["steps"] == ["split", "train"]
    bounds = f"[{change['low']:+.3f}, {change['high']:+.3f}]"
    assert weak.words == (f"diagnosis.accuracy {apart:+.3f} {bounds} better than weak",)
    assert weak.measures["diagnosis.accuracy"].value == pytest.approx(np.mean(list(theirs.values())))
    assert {"p50_ms", "size_mb"} <= weak.measures.keys()
    assert all(one.change is None and one.verdict is None for one in weak.measures.values())


def test_folds_are_compared_on_every_row_that_they_asked_about(
    table_system: System, cache: Path, tmp_path: Path, quick: None
) -> None:
    """Each row of the training split once, by a model that had not seen it, in both recipes."""
    from luodi.core import records

    folds = {"folds": {"count": 2, "steps": [TRAIN]}}
    recipe = recipe_of(table_system, {"weak": {"model": "constant", "steps": [folds]}, "plain": WEAK}, SPLIT, folds)
    result = engine.run(recipe, out=tmp_path, cache=cache)
    weak, plain = (result.evidence[-1].notes["against"][name] for name in ("weak", "plain"))
    exams = [records.read(path) for path in sorted(result.folder.glob("steps/*/aside/folds.parquet"))]
    assert len(exams) == 2 and sorted(exams[0].ids) == sorted(exams[1].ids)
    trained = result.evidence[0].notes["rows"]["train"]
    assert len(set(exams[0].ids)) == len(exams[0]) == trained
    shares = [float(np.mean(one.columns["diagnosis.value"] == one.columns["diagnosis.truth"])) for one in exams]
    found = weak["folds"]["diagnosis.accuracy"]
    assert found["value"] == pytest.approx(max(shares)) and found["count"] == trained
    assert found["change"]["value"] == pytest.approx(max(shares) - min(shares)) and found["verdict"] == "better"
    assert weak["evidence"]["words"][1].startswith(f"in folds, {trained} rows: diagnosis.accuracy +")
    assert "folds" not in plain and len(plain["evidence"]["words"]) == 1


def test_equal_steps_are_not_done_twice(compared: engine.Result) -> None:
    steps = streamed(compared.folder, "events.against-longer.jsonl")
    assert [(one["name"], one["state"]) for one in steps] == [("split", "kept"), ("train", "run")]
    assert [one["name"] for one in streamed(compared.folder, "events.jsonl")] == ["split", "train", "prune"]


def test_every_medium_shows_it(compared: engine.Result, tmp_path: Path) -> None:
    bundle = Bundle.load(compared.bundle)
    assert bundle.evidence == compared.evidence
    table = table_of(compared.evidence)
    assert [line.label for line in table.lines] == ["1 split", "2 train", "3 prune", "against weak", "against longer"]
    assert [line["rival"] for line in table.json()] == [False] * 3 + [True] * 2
    for text in (table.text(200), table.markdown(), card(bundle, "cancer"), table.html().replace("</span>", "")):
        assert "weak" in text and "better than weak" in text
    assert "another recipe scored on the same held-out rows" in table.markdown()
    assert "another recipe" not in table_of(compared.evidence[:2]).markdown()
    page = build(compared.folder)
    assert "better than weak" in page.read_text(encoding="utf-8")
    told = json.loads(page.with_name("report.json").read_text(encoding="utf-8"))["table"]
    assert [line["step"] for line in told] == ["split", "train", "prune", "weak", "longer"]


def test_a_run_again_does_nothing_and_forgets_rivals_no_longer_asked_for(
    table_system: System, cache: Path, tmp_path: Path, quick: None
) -> None:
    recipe = recipe_of(table_system, {"weak": WEAK}, SPLIT, TRAIN)
    first = engine.run(recipe, out=tmp_path, cache=cache)
    again = engine.run(recipe, out=tmp_path, cache=cache)
    assert again.evidence == first.evidence and again.done == 0
    assert {one["state"] for one in streamed(again.folder, "events.against-weak.jsonl")[-2:]} == {"kept"}
    alone = engine.run(recipe_of(table_system, {}, SPLIT, TRAIN), out=tmp_path, cache=cache)
    assert alone.done == 0 and not faced(alone.evidence) and faced(first.evidence)
    assert not faced(Bundle.load(alone.bundle).evidence)
    assert {path.name for path in (alone.folder / "records").iterdir()} == {alone.evidence[-1].records}


def test_killed_in_a_rival_it_goes_on(
    table_system: System, cache: Path, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(table_system, {"weak": WEAK}, SPLIT, TRAIN)
    real, seen = engine._do, []

    def killed(work: Any, before: Any, step: Any, *rest: Any) -> Any:
        seen.append(step)
        if len(seen) == 4:  # split and train of the recipe, split of the rival, its training
            raise KeyboardInterrupt
        return real(work, before, step, *rest)

    monkeypatch.setattr(engine, "_do", killed)
    with pytest.raises(KeyboardInterrupt):
        engine.run(recipe, out=tmp_path, cache=cache)
    monkeypatch.setattr(engine, "_do", real)
    result = engine.run(recipe, out=tmp_path, cache=cache)
    assert result.done == 0 and result.kept == 2
    states = [one["state"] for one in streamed(result.folder, "events.against-weak.jsonl")]
    assert states == ["run", "run", "kept", "run"] and len(faced(result.evidence)) == 1


def test_other_rows_are_not_compared(table_system: System, cache: Path, tmp_path: Path, quick: None) -> None:
    other = {"steps": [{"sample": {"share": 0.5, "on": "all"}}, SPLIT, TRAIN]}
    with pytest.raises(Refused, match=r"measure\.against\.other\.steps\.0 sample must not come after 'split'"):
        engine.run(recipe_of(table_system, {"other": other}, SPLIT, TRAIN), out=tmp_path, cache=cache)


def test_what_is_wrong_with_a_rival_is_said_with_its_place(
    table_system: System, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = r"measure\.against\.weak"
    cases: list[tuple[Any, str]] = [
        ({"model": "constant", "steps": [TRAIN, "purne"]}, at + r"\.steps\.1: no step is named 'purne'.*prune"),
        ({"model": "constnat", "steps": [TRAIN]}, at + r"\.model: .*did you mean 'constant'"),
        ({"modle": "constant", "steps": [TRAIN]}, at + r"\.modle: unknown key 'modle'; did you mean 'model'"),
        ({"model": "constant", "steps": []}, at + r"\.steps: "),
    ]  # fmt: skip
    for rival, said in cases:
        with pytest.raises(LuodiError, match=said):
            recipe_of(table_system, {"weak": rival})
    with pytest.raises(LuodiError, match="against"):
        recipe_of(table_system, {"../weak": WEAK})
    wrong = plain_recipe(table_system, {"weak": {"model": "constant", "steps": ["prune"]}})
    with pytest.raises(Refused, match=r"measure\.against\.weak\.steps\.0 prune needs 'model'"):
        engine.run(Recipe.of(wrong), out=tmp_path, cache=cache)
    assert plan_recipe(write_recipe(tmp_path / "wrong.yaml", wrong), (), tmp_path, cache, (), json=False) == 2
    assert "measure.against.weak.steps.0 prune needs 'model'" in capsys.readouterr().out
    unfit = recipe_of(table_system, {"weak": {"model": "convnet", "steps": [TRAIN]}})
    with pytest.raises(Refused, match=r"measure\.against\.weak: the model cannot be built"):
        engine.run(unfit, out=tmp_path, cache=cache)


def test_plan_counts_what_rivals_cost(
    table_system: System, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_recipe(tmp_path / "whole.yaml", plain_recipe(table_system, {"weak": WEAK}))
    assert plan_recipe(path, (), tmp_path, cache, (), json=True) == 0
    (other,) = json.loads(capsys.readouterr().out)["others"]
    assert other["name"] == "weak" and [step["name"] for step in other["steps"]] == ["split", "train"]
    assert plan_recipe(path, (), tmp_path, cache, (), json=False) == 0
    assert "against weak, on the same rows:" in capsys.readouterr().out


def test_steps_on_rows_are_the_recipe_s_own(table_system: System) -> None:
    steps = (
        {"clean": {"on": "all"}}, SPLIT, {"pretrained": {"weights": "efficientnet_lite0"}},
        {"balance": {"how": "under"}}, TRAIN, "prune", {"export": {"to": "onnx"}},
    )  # fmt: skip
    (other,) = rivals.others(recipe_of(table_system, {"weak": WEAK}, *steps))
    assert other.recipe.step_names() == ["clean", "split", "balance", "train"]
    assert other.labels[-1] == "measure.against.weak.steps.0 train" and not other.recipe.measure.against


def test_words_of_a_difference() -> None:
    change = Change(value=0.0123, low=0.003, high=0.0214)
    better = Measure(value=0.85, low=0.84, high=0.86, count=2000, change=change, verdict="better")
    assert against("tfidf", "text.accuracy", better) == "text.accuracy +0.012 [+0.003, +0.021] better than tfidf"
    open_ = better.model_copy(update={"change": Change(value=0.002, low=-0.006, high=0.01), "verdict": "undecided"})
    said = "text.accuracy: no difference to tfidf (+0.002 [-0.006, +0.010])"
    assert against("tfidf", "text.accuracy", open_) == said
