"""Folds: every row is asked about once, by a model that did not see it; then all rows are learned."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_data import SIDES, TOTALS, bundle_of, sha, table_bundle, table_rows

from luodi.core.apply import apply, reopen
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.errors import LuodiError, Refused
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.words import rows_told
from luodi.data.folding import members
from luodi.data.folding.folds import Fold, folds_of
from luodi.data.folding.members import summary
from luodi.data.folding.out_of_fold import PENALTIES, penalty_of
from luodi.data.folds import Folds

TRAIN = {"train": {"epochs": 2, "batch_size": 32, "learning_rate": 0.01}}
MODEL = {"mlp": {"hidden": [8]}}


def folded(bundle: Bundle, folder: Path, **fields: Any) -> Bundle:
    return apply(Folds(**{"steps": [TRAIN], "count": 3, **fields}), bundle, Run(folder, scope=("folds", 0)))


@given(st.lists(st.integers(0, 30), min_size=10, max_size=80), st.integers(2, 5), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_row_is_asked_about_once_and_names_stay_together(names: list[int], count: int, seed: int) -> None:
    texts = [str(name) for name in names]
    if len(set(texts)) < 3 * count:
        return
    folds = list(folds_of(texts, [""] * len(texts), count, seed))
    assert sorted(row for fold in folds for row in fold.asked.tolist()) == list(range(len(texts)))
    for fold in folds:
        assert not {texts[row] for row in fold.asked} & {texts[row] for row in fold.learned}
        assert len(fold.asked) + len(fold.learned) == len(texts)


def test_folds_are_even_in_labels() -> None:
    labels = ["a"] * 60 + ["b"] * 25 + ["c"] * 15
    for fold in folds_of([str(at) for at in range(100)], labels, 5, 0):
        assert Counter(labels[row] for row in fold.asked) == {"a": 12, "b": 5, "c": 3}
    first, again, other = (
        [fold.asked.tolist() for fold in folds_of([str(at) for at in range(100)], labels, 5, seed)]
        for seed in (0, 0, 1)
    )
    assert first == again != other
    with pytest.raises(LuodiError, match="1 different rows do not fill 2 folds"):
        list(folds_of(["a", "a"], ["", ""], 2, 0))


def test_mean_and_spread_by_hand() -> None:
    found = summary([{"m": 1.0, "n": 2.0}, {"m": 2.0}, {"m": 6.0}])
    assert found["m"] == {
        "mean": 3.0,
        "deviation": pytest.approx(7**0.5),
        "low": 1.0,
        "high": 6.0,
        "values": [1.0, 2.0, 6.0],
    }
    assert found["n"]["values"] == [2.0] and found["n"]["deviation"] == 0


def test_the_bundle_that_goes_on_learned_every_training_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    whole = members.in_turn

    def counted(bundle: Bundle, steps: Any, run: Run) -> Any:
        assert bundle.data is not None
        seen.append(len(bundle.data["train"]))
        return whole(bundle, steps, run)

    monkeypatch.setattr(members, "in_turn", counted)
    bundle = table_bundle(SIDES, MODEL, 120)
    done = folded(bundle, tmp_path)
    assert seen == [80, 80, 80] and done.notes["updates"] == 2 * 4  # 120 rows in batches of 32
    found = done.notes["folds"]["metrics"]["side.accuracy"]
    assert len(found["values"]) == 3 and found["mean"] == pytest.approx(np.mean(found["values"]))
    assert done.data is bundle.data and done.facts >= {"model", "fitted", "split"} and bundle.model is None
    assert rows_told(done.notes)[0].startswith("3 folds: accuracy ")
    assert len(done.edits) == 1 and done.golden is not None


def test_members_are_no_twins_and_the_last_model_is_that_of_its_scope(tmp_path: Path) -> None:
    bundle = table_bundle(SIDES, MODEL, 60)
    done = folded(bundle, tmp_path / "a", count=2, repeat=2)
    again = folded(bundle, tmp_path / "b", count=2, repeat=2)
    own = {"history": done.notes["history"], "memory": done.notes["memory"]}  # seconds, and what was free
    assert sha(done) == sha(again) and done.notes == {**again.notes, **own}
    values = done.notes["folds"]["metrics"]["side.loss"]["values"]
    assert len(set(values)) == 4
    alone = apply(resolve("steps", TRAIN), bundle, Run(tmp_path / "c", scope=("folds", 0, "whole", 1)))
    assert sha(alone) == sha(done)
    assert "2 times 2 folds" in rows_told(done.notes)[0]


def test_a_killed_run_goes_on_after_the_last_whole_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, wanted = table_bundle(SIDES, MODEL, 60), []
    whole = members.member

    def counted(*given: Any) -> Bundle:
        wanted.append(1)
        if len(wanted) == 3:
            raise KeyboardInterrupt
        return whole(*given)

    monkeypatch.setattr(members, "member", counted)
    with pytest.raises(KeyboardInterrupt):
        folded(bundle, tmp_path)
    done = folded(bundle, tmp_path)
    assert len(wanted) == 4  # two folds, the killed one, and that one again
    assert done.notes["folds"] == folded(bundle, tmp_path / "fresh").notes["folds"]


def test_out_of_fold_scores_are_those_of_training_by_hand(tmp_path: Path) -> None:
    bundle = table_bundle(TOTALS, MODEL, 60)
    done = folded(bundle, tmp_path / "folds", count=2)
    rows = bundle.data["train"]  # type: ignore[index]
    values = []
    for number, fold in enumerate(folds_of([str(name) for name in rows.ids], [""] * 60, 2, 0)):
        run = Run(tmp_path / str(number), scope=("folds", 0, "fold", 0, number, "steps", 1))
        part = bundle_of(TOTALS, MODEL, rows.take(fold.learned), table_rows(64, 1))
        trained = apply(resolve("steps", TRAIN), part, run)
        asked = rows.take(fold.asked)
        answers = trained.predictor()(trained.task.rows_to_requests(asked))
        off = np.asarray([a["total"]["value"] for a in answers]) - np.asarray(asked.column("total"))
        values.append(float(np.sqrt((off**2).mean())))
    assert done.notes["folds"]["metrics"]["total.rmse"]["values"] == pytest.approx(values, rel=1e-6)


def test_nested_folds_choose_without_the_rows_that_judge(tmp_path: Path) -> None:
    still = {"train": {"epochs": 1, "learning_rate": 1e-9}}
    good = {"train": {"epochs": 6, "learning_rate": 0.02, "batch_size": 16}}
    bundle = table_bundle(SIDES, MODEL, 90)
    done = folded(bundle, tmp_path, steps=[], choices={"still": [still], "good": [good]}, nested=2, count=2)
    found = done.notes["folds"]
    assert found["chosen"] == ["good", "good"] and found["chosen_last"] == "good" and found["nested"] == 2
    assert found["metrics"]["side.accuracy"]["mean"] > 0.8 and ", good chosen" in rows_told(done.notes)[0]
    with pytest.raises(ValueError, match="`nested` chooses between two or more"):
        Folds(steps=("train",), nested=3)
    with pytest.raises(ValueError, match="give `steps`"):
        Folds()


def test_data_steps_inside_work_on_the_members_rows(table_system: Any, cache: Path, tmp_path: Path) -> None:
    """And opening the bundle again replays them, not the folds."""
    bundle = apply(resolve("steps", "split"), table_system.fresh(), Run(tmp_path))
    done = folded(bundle, tmp_path, steps=[{"balance": {"how": "over"}}, TRAIN], count=2)
    assert bundle.data is not None and done.data is not None
    assert len(done.data["train"]) > len(bundle.data["train"])
    assert [next(iter(said["step"])) for said in done.data.origin.steps] == ["split", "balance"]  # type: ignore[union-attr]
    back = reopen(Bundle.load(done.save(tmp_path / "bundle")), cache, Run(tmp_path))
    assert back.data is not None and back.data["train"].fingerprint == done.data["train"].fingerprint


def test_groups_share_a_fold(tmp_path: Path) -> None:
    rows = table_rows(60, 0)
    table = rows.table.append_column("who", [[str(at // 5) for at in range(60)]])
    step = Folds(steps=(resolve("steps", TRAIN),), group="who")
    for fold in step._folds(resolve("tasks", SIDES), Rows(table), 3, 0):
        who = table.column("who").to_pylist()
        assert not {who[row] for row in fold.asked} & {who[row] for row in fold.learned}
    with pytest.raises(LuodiError, match="did you mean 'who'"):
        folded(bundle_of(SIDES, MODEL, Rows(table)), tmp_path, group="whom")


def test_what_is_refused(tmp_path: Path) -> None:
    bundle = table_bundle(SIDES, MODEL, 60)
    trained = apply(resolve("steps", TRAIN), bundle, Run(tmp_path))
    with pytest.raises(Refused, match="must not come after"):
        folded(trained, tmp_path)
    with pytest.raises(Refused, match="needs 'model'"):
        folded(bundle, tmp_path, steps=["prune"])
    with pytest.raises(Refused, match="affine changes an image"):
        folded(bundle, tmp_path, steps=[{"train": {"augment": ["affine"]}}])
    assert bundle.data is not None
    sides = bundle.data["train"].column("side")
    uneven = bundle.data["train"].take([at for at, side in enumerate(sides) if side == "up" or at % 3 == 0])
    made = apply(resolve("steps", {"balance": {"how": "synthetic"}}), bundle_of(SIDES, MODEL, uneven), Run(tmp_path))
    with pytest.raises(LuodiError, match="put balance into the `steps` of folds"):
        folded(made, tmp_path)
    assert Folds(steps=(resolve("steps", {"clean": {}}), resolve("steps", TRAIN))).packages() == {"sklearn": "data"}
    inner = Folds(steps=(resolve("steps", TRAIN), resolve("steps", "prune"))).facts(
        frozenset({"rows", "split", "loss"})
    )
    assert inner.needs == {"split", "loss"} and {"model", "fitted"} <= inner.gives


def test_the_penalty_of_a_fold_is_chosen_by_the_rows_it_learns_from() -> None:
    """Labels at random want the strongest one, plain ones a weak one; rows that are asked about change nothing."""
    dice = np.random.default_rng(0)
    x = dice.normal(size=(240, 3)).astype(np.float32)
    names = [f"row {row}" for row in range(240)]
    plain = np.where(x[:, 0] > 0, "up", "down")
    noise = dice.permutation(plain)
    fold = Fold(np.arange(180), np.arange(180, 240))
    assert penalty_of(x, plain.tolist(), names, fold) == max(PENALTIES)
    assert penalty_of(x, noise.tolist(), names, fold) == min(PENALTIES)
    other, moved = plain.copy(), x.copy()
    other[180:], moved[180:] = "sideways", 99
    assert penalty_of(moved, other.tolist(), names, fold) == max(PENALTIES)
    assert penalty_of(x, ["up"] * 179 + ["down"] * 61, names, fold) in PENALTIES  # a label that an inner fold may lack
    assert penalty_of(x, ["up"] * 240, names, fold) == min(PENALTIES)
