"""The split: exact counts, identities, strata, leakage, and what it does not depend on."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.errors import LuodiError
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.source import Data, rows_of
from luodi.core.task import Task
from luodi.core.words import rows_told
from luodi.data.likeness.rows import near_pairs
from luodi.data.sources.sample import Sample
from luodi.data.split import Split
from luodi.data.splitting.assign import assign, shared_out
from luodi.data.splitting.order import by_time, moments_of

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


# ---- groups, time, near copies -------------------------------------------------------------------------------------


def test_a_group_shares_a_side_whatever_the_identities() -> None:
    count = 300
    columns = {
        "x": list(range(count)),
        "shop": [f"s{at // 6}" for at in range(count)],
        "visit": [at // 2 for at in range(count)],
    }
    rows = rows_of({**columns, "label": [str(at % 2) for at in range(count)]})
    for step in (Split(group="shop"), Split(group="shop", id="visit")):
        done = split_of(rows, step)
        assert done.data is not None
        homes = {part: set(held.column("shop")) for part, held in done.data.splits.items()}
        assert not homes["train"] & homes["test"] and not homes["validation"] & (homes["train"] | homes["test"])
        assert {part: len(held) for part, held in done.data.splits.items()} == {
            "train": 210,
            "validation": 30,
            "test": 60,
        }
    with pytest.raises(LuodiError, match="did you mean 'shop'"):
        split_of(rows, Split(group="shops"))
    linked = rows_of({"x": [0, 1, 2, 3], "shop": ["a", "a", "b", "c"], "who": [1, 2, 2, 3], "label": ["u"] * 4})
    done = split_of(linked, Split(group="shop", id="who", validation=0, test=0.25, stratify=None))
    assert done.data is not None and done.data["test"].column("x") == [3]  # 0, 1 and 2 hang together by two columns


@pytest.mark.parametrize("moments", [
    [float(at) for at in range(100)], [f"2024-{1 + at // 28:02d}-{1 + at % 28:02d}" for at in range(100)],
    [f"2024-05-01T{at // 60:02d}:{at % 60:02d}:00+08:00" for at in range(100)],
])  # fmt: skip
def test_later_rows_are_held_out(moments: list[object]) -> None:
    order = np.random.default_rng(0).permutation(100)
    rows = rows_of({"x": order.tolist(), "when": [moments[at] for at in order], "label": [str(at % 3) for at in order]})
    done = split_of(rows, Split(time="when"))
    assert done.data is not None and done.notes["stratified_by"] is None
    parts = {part: sorted(held.column("x")) for part, held in done.data.splits.items()}
    assert parts == {"train": list(range(70)), "validation": list(range(70, 80)), "test": list(range(80, 100))}
    assert done.data["test"].column("x") != parts["test"]  # inside a part the order is random


def test_a_moment_is_not_divided_and_must_be_one() -> None:
    parts = by_time([1, 1, 1, 2, 2, 3, 3, 3, 3, 3], [str(at) for at in range(10)], {"test": 0.3, "validation": 0.2}, 0)
    assert {part: sorted(held) for part, held in parts.items()} == {
        "test": [5, 6, 7, 8, 9], "validation": [3, 4] if parts["validation"] else [], "train": sorted(parts["train"])
    }  # fmt: skip
    for cells, told in (
        (["soon", "later"], "is no moment"),
        ([1.0, "2024-01-01"], "mixes kinds"),
        ([None, 1], "row 0"),
    ):
        with pytest.raises(LuodiError, match=told):
            moments_of(cells, "when")
    for more in ({"group": "a"}, {"near": "together"}, {"stratify": "label"}):
        with pytest.raises(ValueError, match="time"):
            Split(time="when", **more)
    flat = rows_of({"x": list(range(9)), "when": [1] * 9, "label": ["a"] * 9})
    with pytest.raises(LuodiError, match="9 rows by when leave no"):
        split_of(flat, Split(time="when"))


def test_near_copies_are_reported_kept_together_or_refused(digits: Rows) -> None:
    """Pictures and brighter copies of theirs: a copy on the other side flatters the test score."""
    cells, labels = digits.column("image")[:150], digits.column("label")[:150]
    pictures = [Image.open(io.BytesIO(cell)) for cell in cells]
    brighter = [one.point(lambda value: min(int(value * 1.05) + 1, 255)) for one in pictures]
    rows = rows_of({"image": [*cells, *map(_png, brighter)], "label": [*labels, *labels], "first": [*range(150)] * 2})
    task = {
        "supervised": {"inputs": {"image": {"image": {"size": 28, "channels": 1}}}, "targets": {"label": "category"}}
    }
    bundle = Bundle(task=resolve("tasks", task), data=Data({"all": rows}), facts=frozenset({"rows"}))
    done = Split()(bundle, Run(Path("unused")))
    assert done.data is not None
    seen = {part: held.column("first") for part, held in done.data.splits.items()}
    wanted = sum(first in seen["train"] or first in seen["validation"] for first in seen["test"])
    wanted += sum(first in seen["train"] for first in seen["validation"])
    told = done.notes["near"]
    assert done.notes["leakage"]["rows"] == 0 and 0.95 * wanted <= told["rows"] <= wanted
    assert f"{told['rows']} held-out rows are nearly the same as rows of another part" in rows_told(done.notes)[2]
    with pytest.raises(LuodiError, match="`near: together` keeps"):
        Split(near="refuse")(bundle, Run(Path("unused")))
    together = Split(near="together")(bundle, Run(Path("unused")))
    assert together.notes["near"]["rows"] == 0 and together.notes["rows"] == {
        "train": 210,
        "validation": 30,
        "test": 60,
    }
    assert "near" not in Split(near="off")(bundle, Run(Path("unused"))).notes
    assert "near" not in split_of(table(50), Split()).notes  # numbers are equal or they are not


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_the_reviews_are_half_copies_and_leak(cache: Path) -> None:
    """The sample as it is: rows of other identities (their line numbers) with the same text on both sides."""
    rows = Sample(name="reviews_zh").open(cache)
    texts = rows.column("text")
    assert len(rows) == 35123 and len(set(texts)) == 17410
    assert Counter(rows.column("label")) == {"negative": 18575, "positive": 16548}
    lines = rows.with_ids(np.asarray([f"line {at}" for at in range(len(rows))], object)).take(range(0, 35123, 4))
    task = resolve("tasks", {"supervised": {"inputs": {"text": "category"}, "targets": {"label": "category"}}})
    bundle = Bundle(task=task, data=Data({"all": lines}), facts=frozenset({"rows"}))
    leaked = Split()(bundle, Run(Path("unused"))).notes["leakage"]["rows"]
    assert leaked > 100
    pairs = near_pairs(_Untold(), lines.take(range(3000)), ["text"])
    assert pairs is not None and len(pairs) and all(texts[4 * a] != texts[4 * b] for a, b in pairs.tolist())
    whole = Split(near="together")(bundle.replace(task=_Untold()), Run(Path("unused")))
    assert whole.notes["leakage"]["rows"] == 0 and whole.notes["near"]["rows"] == 0


class _Untold(Task):
    """A task that does not say what its columns are: long strings are told by themselves."""
