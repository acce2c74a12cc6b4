"""The split: exact counts, identities, strata, leakage, and what it does not depend on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.errors import LuodiError
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.source import Data, rows_of
from luodi.data.sources.sample import Sample
from luodi.data.split import Split
from luodi.data.splitting.assign import assign, shared_out

SHARES = {"test": 0.2, "validation": 0.1}


def bundle_of(rows: Rows, target: str = "category") -> Bundle:
    inputs = {name: "number" for name in rows.columns if name != "label"}
    task = resolve("tasks", {"supervised": {"inputs": inputs or {"image": "image"}, "targets": {"label": target}}})
    return Bundle(task=task, data=Data({"all": rows}), facts=frozenset({"rows", "loss"}))


def split_of(rows: Rows, step: Split, seed: int = 0, target: str = "category") -> Bundle:
    return step(bundle_of(rows, target), Run(Path("unused"), seed=seed))


def table(count: int, classes: int = 3, seed: int = 0) -> Rows:
    dice = np.random.default_rng(seed)
    return rows_of({"x": dice.normal(size=count).tolist(), "label": [f"c{i % classes}" for i in range(count)]})


def parts_of(bundle: Bundle) -> dict[str, list[str]]:
    assert bundle.data is not None
    return {part: rows.ids.tolist() for part, rows in bundle.data.splits.items()}


def test_the_split_of_the_digits_is_the_pinned_one(cache: Path) -> None:
    rows = Sample(name="digits").open(cache)
    task = resolve("tasks", {"supervised": {"inputs": {"image": {"image": {"size": 28, "channels": 1}}},
                                            "targets": {"label": "category"}}})  # fmt: skip
    done = Split()(Bundle(task=task, data=Data({"all": rows}), facts=frozenset({"rows"})), Run(Path("unused")))
    assert done.data is not None and "split" in done.facts
    counts = {part: Counter(held.column("label")) for part, held in done.data.splits.items()}
    for part, each in (("train", 350), ("validation", 50), ("test", 100)):
        assert counts[part] == {str(digit): each for digit in range(10)}
    text = "\n".join(f"{part} {' '.join(ids)}" for part, ids in parts_of(done).items())
    assert sha256(text.encode()).hexdigest()[:16] == "209c0fc7a2b33dab"
    assert done.notes["rows"] == {"train": 3500, "validation": 500, "test": 1000}
    assert done.notes["leakage"]["rows"] == 0 and done.notes["stratified_by"] == "label"


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=300),
    st.floats(0, 0.6), st.floats(0, 0.39), st.integers(0, 5),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_counts_are_exact_and_strata_even(strata: list[int], test: float, validation: float, seed: int) -> None:
    names = [f"row {at}" for at in range(len(strata))]
    parts = assign(names, [str(one) for one in strata], {"test": test, "validation": validation}, seed)
    assert sorted(row for rows in parts.values() for row in rows) == list(range(len(names)))
    total = len(names)
    assert abs(len(parts["test"]) - total * test) <= 0.5 + 1e-6
    assert abs(len(parts["validation"]) - total * validation) <= 0.5 + 1e-6
    sizes = Counter(strata)
    for part, share in (("test", test), ("validation", validation)):
        found = Counter(strata[row] for row in parts[part])
        if min(sizes.values()) >= 10:  # room in every stratum: none is more than a row from its share
            assert all(abs(found[one] - size * share) < 1 + 1e-6 for one, size in sizes.items())


@given(st.lists(st.integers(0, 25), min_size=2, max_size=120), st.integers(0, 3), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_one_identity_stays_together_and_the_order_of_the_rows_is_nothing(names, seed, random) -> None:
    texts = [str(name) for name in names]
    strata = [str(name % 2) for name in names]
    parts = assign(texts, strata, SHARES, seed)
    homes = {part: {texts[row] for row in rows} for part, rows in parts.items()}
    assert not homes["train"] & homes["test"] and not homes["train"] & homes["validation"]
    assert not homes["test"] & homes["validation"]
    largest = max(Counter(names).values())
    assert abs(len(parts["test"]) - len(names) * 0.2) <= largest + 0.5
    shuffled = list(range(len(names)))
    random.shuffle(shuffled)
    again = assign([texts[row] for row in shuffled], [strata[row] for row in shuffled], SHARES, seed)
    assert {part: [texts[shuffled[row]] for row in rows] for part, rows in again.items()} == {
        part: [texts[row] for row in rows] for part, rows in parts.items()
    }


def test_small_groups_leave_the_counts_exact() -> None:
    names = [str(at // 2) for at in range(600)] + [str(1000 + at) for at in range(400)]
    parts = assign(names, ["a" if at % 3 else "b" for at in range(1000)], SHARES, 0)
    assert {part: len(rows) for part, rows in parts.items()} == {"test": 200, "validation": 100, "train": 700}


@pytest.mark.parametrize("strata", [1, 7])
def test_new_rows_move_few_old_ones(strata: int) -> None:
    names = [f"row {at}" for at in range(1010)]
    groups = [str(at % strata) for at in range(1010)]

    def homes(count: int) -> dict[str, str]:
        parts = assign(names[:count], groups[:count], SHARES, 0)
        return {names[row]: part for part, rows in parts.items() for row in rows}

    before = homes(1000)
    for more in (1, 10):
        after = homes(1000 + more)
        moved = sum(after[name] != part for name, part in before.items())
        assert moved <= 2 * min(more, strata) + 2 * more


def test_largest_remainders_by_hand() -> None:
    assert shared_out(4, {"a": 1.5, "b": 1.5, "c": 1.0}, {"a": 9, "b": 9, "c": 9}) == {"a": 2, "b": 1, "c": 1}
    assert shared_out(2, {"a": 0.4, "b": 1.6}, {"a": 1, "b": 8}) == {"a": 0, "b": 2}  # `a` keeps its only row


def test_only_its_own_seed_moves_the_split() -> None:
    rows = table(200)
    first = parts_of(split_of(rows, Split()))
    assert parts_of(split_of(rows, Split(), seed=7)) == first
    other = parts_of(split_of(rows, Split(seed=1)))
    assert {part: len(ids) for part, ids in other.items()} == {part: len(ids) for part, ids in first.items()}
    assert len(set(other["test"]) & set(first["test"])) < 20  # 8 of 40 expected by chance


def test_the_first_rows_of_a_part_are_a_fair_sample() -> None:
    rows = rows_of({"x": list(range(5000)), "label": [str(at % 5) for at in range(5000)]})
    done = split_of(rows, Split())
    assert done.data is not None
    head = done.data["train"].column("label")[:200]
    assert all(20 <= head.count(label) <= 62 for label in "01234")  # 40 expected, within four deviations of 5.7
    assert np.mean(done.data["train"].column("x")[:200]) == pytest.approx(2500, abs=410)  # four deviations


def test_an_id_column_keeps_a_patient_together() -> None:
    count = 300
    patients = [at // 3 for at in range(count)]
    rows = rows_of({"x": list(range(count)), "patient": patients, "label": [str(at % 2) for at in range(count)]})
    done = split_of(rows, Split(id="patient"))
    assert done.data is not None
    homes = {part: set(held.column("patient")) for part, held in done.data.splits.items()}
    assert not homes["train"] & homes["test"] and not homes["validation"] & (homes["train"] | homes["test"])
    assert {part: len(held) for part, held in done.data.splits.items()} == {"train": 210, "validation": 30, "test": 60}
    with pytest.raises(LuodiError, match="did you mean 'patient'"):
        split_of(rows, Split(id="patients"))
    gap = rows_of({"x": [1.0, 2.0], "patient": [1, None], "label": ["a", "b"]})
    with pytest.raises(LuodiError, match="'patient' is empty in 1 of 2 rows"):
        split_of(gap, Split(id="patient"))


def test_equal_rows_stay_together_and_no_leak_is_told() -> None:
    rows = rows_of({"x": [at // 2 for at in range(400)], "label": [str(at // 2 % 2) for at in range(400)]})
    done = split_of(rows, Split())
    assert done.notes["leakage"]["rows"] == 0
    assert done.notes["rows"] == {"train": 280, "validation": 40, "test": 80}


def test_leaks_are_counted_and_refused_if_asked() -> None:
    # Every input occurs under two labels: two rows, two identities, one picture.
    rows = rows_of({"x": [at // 2 for at in range(400)], "label": [str(at % 2) for at in range(400)]})
    done = split_of(rows, Split())
    assert done.data is not None
    seen = {part: Counter(held.column("x")) for part, held in done.data.splits.items()}
    pairs = {
        f"{a}-{b}": sum(count for x, count in seen[b].items() if x in seen[a])
        for a, b in (("train", "validation"), ("train", "test"), ("validation", "test"))
    }
    assert done.notes["leakage"]["pairs"] == pairs and pairs["train-test"] > 30
    told = done.notes["leakage"]
    assert f"{told['rows']} held-out rows have the same inputs" in told["words"]
    with pytest.raises(LuodiError, match="held-out rows have the same inputs"):
        split_of(rows, Split(leakage="refuse"))
    by_input = split_of(rows, Split(leakage="refuse", id="x"))
    assert by_input.notes["leakage"]["rows"] == 0


def test_strata_follow_the_task_or_the_recipe() -> None:
    rows = rows_of(
        {"x": list(range(100)), "kind": ["rare"] * 10 + ["usual"] * 90, "label": [at % 7 for at in range(100)]}
    )
    assert split_of(rows, Split(), target="number").notes["stratified_by"] is None
    assert split_of(rows, Split(stratify=None)).notes["stratified_by"] is None
    done = split_of(rows, Split(stratify="kind"), target="number")
    assert done.data is not None and Counter(done.data["test"].column("kind")) == {"rare": 2, "usual": 18}
    with pytest.raises(LuodiError, match="did you mean 'kind'"):
        split_of(rows, Split(stratify="kinds"))


def test_too_few_rows_and_a_second_split_are_refused() -> None:
    with pytest.raises(LuodiError, match="3 rows stratified by label leave no validation rows"):
        split_of(table(3), Split())
    with pytest.raises(LuodiError, match="leave no test rows"):
        split_of(table(1), Split(validation=0))
    with pytest.raises(ValueError, match="leave no rows to train on"):
        Split(validation=0.5, test=0.5)
    done = split_of(table(50), Split())
    with pytest.raises(LuodiError, match="already split"):
        Split()(done, Run(Path("unused")))
    whole = split_of(table(50), Split(validation=0, test=0))
    assert whole.notes["rows"] == {"train": 50, "validation": 0, "test": 0}


def test_the_given_bundle_is_left_as_it_was() -> None:
    rows = table(60)
    bundle = bundle_of(rows)
    before = replace(bundle)
    done = Split()(bundle, Run(Path("unused")))
    assert bundle == before and list(bundle.data.splits) == ["all"]  # type: ignore[union-attr]
    assert done.task is bundle.task and done.facts - bundle.facts == {"split"}
    assert resolve("steps", {"split": {"test": 0.3}}) == Split(test=0.3)
