"""What a step is worth: the recipe once more without it, paired on the same rows, nothing done twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import System

from luodi.core import engine, records
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError, Refused
from luodi.core.recipe import Recipe

SPLIT = {"split": {"validation": 0.1, "test": 0.3}}
TRAIN = {"train": {"epochs": 3, "batch_size": 32, "learning_rate": 0.01}}
MEASURE = {"seconds": 0.2, "calls": 20, "resamples": 100}


def recipe_of(system: System, without: list[str], *steps: Any) -> Recipe:
    return Recipe.of(system.recipe(*steps, measure={**MEASURE, "without": without}))


def test_the_worth_of_a_step_is_paired_and_kept(table_system: System, cache: Path, tmp_path: Path, quick: None) -> None:
    plain = recipe_of(table_system, [], SPLIT, {"balance": {"how": "under"}}, TRAIN)
    assert engine.run(plain, out=tmp_path, cache=cache).done == 3
    recipe = recipe_of(table_system, ["balance"], SPLIT, {"balance": {"how": "under"}}, TRAIN)
    result = engine.run(recipe, out=tmp_path, cache=cache)
    assert result.done == 0 and result.kept == 3  # asking for the worth does not run the recipe itself again
    said = [one for one in result.evidence[1].words if one.startswith("against the recipe without it: accuracy ")]
    assert len(said) == 1 and "effect" not in result.evidence[0].notes
    effect = result.evidence[1].notes["effect"]["diagnosis.accuracy"]
    names = {path.name for path in (result.folder / "records").iterdir()}
    assert result.evidence[2].records in names and len(names) == 2
    mine, theirs = (
        records.read(result.folder / "records" / name) for name in sorted(names, key=result.evidence[2].records.__ne__)
    )
    right = [np.mean(one.columns["diagnosis.value"] == one.columns["diagnosis.truth"]) for one in (mine, theirs)]
    assert effect["value"] == pytest.approx(right[0]) and effect["change"]["value"] == pytest.approx(
        right[0] - right[1]
    )
    assert Bundle.load(result.bundle).evidence == result.evidence
    again = engine.run(recipe, out=tmp_path, cache=cache)
    assert again.evidence == result.evidence and again.done == 0
    events = (result.folder / "events.without-balance.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum('"state": "run"' in line for line in events) == 1  # train; split is shared
    assert not any('"without"' in line for line in (result.folder / "events.jsonl").read_text().splitlines())


def test_other_held_out_rows_are_not_compared(table_system: System, cache: Path, tmp_path: Path, quick: None) -> None:
    recipe = recipe_of(table_system, ["sample"], {"sample": {"share": 0.5, "on": "all"}}, SPLIT, TRAIN)
    result = engine.run(recipe, out=tmp_path, cache=cache)
    assert result.evidence[0].words[-1] == "against the recipe without it: not comparable, other rows were held out"


def test_what_cannot_be_left_out(table_system: System, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(LuodiError, match="no step is named 'trian'; did you mean 'train'"):
        recipe_of(table_system, ["trian"], SPLIT, TRAIN)
    with pytest.raises(LuodiError, match="without split the recipe has no steps"):
        recipe_of(table_system, ["split"], SPLIT)
    with pytest.raises(Refused, match=r"without split \(measure.without\): step 1 train needs 'split'"):
        engine.run(recipe_of(table_system, ["split"], SPLIT, TRAIN), out=tmp_path, cache=cache)
