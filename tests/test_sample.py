"""Sampling: exact counts, of training rows alone, the same whenever it is drawn again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from small_data import SIDES, bundle_of, table_rows

from luodi.core.apply import apply, reopen
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.errors import LuodiError, Refused
from luodi.core.run import Run
from luodi.core.source import rows_of
from luodi.data.sample import Sample

TASK = {"supervised": {"inputs": {"x": "number"}, "targets": {"kind": "category"}}}


def some(sizes: dict[str, int]) -> Bundle:
    kinds = [kind for kind, size in sizes.items() for _ in range(size)]
    rows = rows_of({"x": list(range(len(kinds))), "kind": kinds})
    return bundle_of(TASK, {"mlp": {}}, rows, rows_of({"x": [1, 2], "kind": ["a", "b"]}))


def drawn(bundle: Bundle, seed: int = 0, **fields: Any) -> Bundle:
    return apply(Sample(**fields), bundle, Run(Path("unused"), seed=seed))


def kinds(bundle: Bundle) -> Counter[str]:
    assert bundle.data is not None
    return Counter(bundle.data["train"].column("kind"))


SIZES = {"a": 60, "b": 30, "c": 10}


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"how": "stratified", "share": 0.5}, {"a": 30, "b": 15, "c": 5}),
        ({"how": "stratified", "count": 21}, {"a": 13, "b": 6, "c": 2}),  # largest remainders: 12.6, 6.3, 2.1
        ({"how": "uniform"}, {"a": 10, "b": 10, "c": 10}),
        ({"how": "uniform", "count": 20}, {"a": 7, "b": 7, "c": 6}),
        ({"how": "uniform", "share": 0.15}, {"a": 5, "b": 5, "c": 5}),
    ],
)
def test_counts_are_exact(fields: dict[str, Any], wanted: dict[str, int]) -> None:
    done = drawn(some(SIZES), **fields)
    assert kinds(done) == wanted and done.data is not None
    places = done.data["train"].column("x")
    assert places == sorted(set(places)) and len(done.data["validation"]) == 2
    assert done.notes["labels"] == {"in": SIZES, "out": wanted} and done.notes["rows_in"] == 100
    assert done.notes["told"][0].startswith(f"100 -> {sum(wanted.values())} training rows, {fields['how']} by kind")


def test_random_rows_follow_the_seed() -> None:
    first, again, other = (drawn(some(SIZES), seed, count=40) for seed in (0, 0, 1))
    assert first.data is not None and again.data is not None and other.data is not None
    mine = first.data["train"].column("x")
    assert mine == again.data["train"].column("x") != other.data["train"].column("x")
    counts = [kinds(drawn(some(SIZES), seed, count=40))["a"] for seed in range(60)]
    assert abs(sum(counts) / 60 - 24) < 1.3  # hypergeometric: deviation 2.4, of 60 draws 0.31; four of them


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(LuodiError, match="label 'c' has 10 rows, an equal part of 60 is 20; at most 30"):
        drawn(some(SIZES), how="uniform", count=60)
    with pytest.raises(LuodiError, match="200 of 100 rows"):
        drawn(some(SIZES), count=200)
    for fields in ({"count": 1, "share": 0.5}, {}, {"how": "stratified"}):
        with pytest.raises(ValueError, match="give `count`"):
            Sample(**fields)
    number = bundle_of(
        {"supervised": {"inputs": {"x0": "number"}, "targets": {"total": "number"}}}, {"mlp": {}}, table_rows(40, 0)
    )
    with pytest.raises(Refused, match="no target of this task is one"):
        drawn(number, how="uniform")
    assert len(drawn(number, how="stratified", target="side", share=0.5).data["train"]) == 20  # type: ignore[union-attr]


def test_before_the_split_all_rows_are_drawn_from(table_system: Any, cache: Path, tmp_path: Path) -> None:
    bundle = table_system.fresh()
    with pytest.raises(Refused, match="needs 'split'"):
        drawn(bundle, share=0.5)
    half = apply(Sample(share=0.5, on="all"), bundle, Run(tmp_path, seed=5, scope=("sample", 0)))
    done = apply(resolve("steps", "split"), half, Run(tmp_path))
    assert half.data is not None and done.data is not None and len(half.data["all"]) == 285
    with pytest.raises(Refused, match="must not come after 'split'"):
        drawn(done, share=0.5, on="all")
    back = reopen(Bundle.load(done.save(tmp_path / "bundle")), cache, Run(tmp_path))
    assert back.data is not None and SIDES
    assert back.data["test"].fingerprint == done.data["test"].fingerprint
