"""Balancing: counts by formula, neighbours by a second implementation, held-out rows as they were."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_data import BOTH, IMAGES, bundle_of, image_rows, table_rows

from luodi.core.apply import apply, reopen
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.errors import LuodiError, Refused
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.source import rows_of
from luodi.data.balance import Balance
from luodi.data.balancing.counts import lowered, raised, weights
from luodi.data.balancing.synthetic import Columns, made_up, neighbours, space
from luodi.fields.category import Category

TASK = {"supervised": {"inputs": {"x": "number", "y": "number", "colour": "category"}, "targets": {"kind": "category"}}}


def some(sizes: dict[str, int], seed: int = 0) -> Bundle:
    dice = np.random.default_rng(seed)
    kinds = [kind for kind, size in sizes.items() for _ in range(size)]
    count = len(kinds)
    shift = np.asarray([0.0 if kind == "a" else 6.0 for kind in kinds])
    rows = rows_of({
        "x": (dice.normal(size=count) + shift).tolist(), "y": dice.integers(0, 9, count).tolist(),
        "colour": dice.choice(["red", "blue"], count).tolist(), "kind": kinds, "row": list(range(count)),
    })  # fmt: skip
    return bundle_of(TASK, {"mlp": {"hidden": [4]}}, rows, rows.take(range(0, count, 3)))


def balanced(bundle: Bundle, seed: int = 0, **fields: Any) -> Bundle:
    return apply(Balance(**fields), bundle, Run(Path("unused"), seed=seed))


def train(bundle: Bundle) -> Rows:
    assert bundle.data is not None
    return bundle.data["train"]


SIZES = {"a": 80, "b": 20}


def test_counts_by_formula() -> None:
    assert weights(SIZES, 1.0) == pytest.approx({"a": 100 / 160, "b": 100 / 40})  # rows / (labels * count)
    half = weights(SIZES, 0.5)
    assert half["b"] / half["a"] == pytest.approx(2.0) and sum(SIZES[k] * half[k] for k in SIZES) == pytest.approx(100)
    assert raised(SIZES, 1.0) == {"a": 80, "b": 80} and raised(SIZES, 0.5) == {"a": 80, "b": 40}
    assert lowered(SIZES, 1.0) == {"a": 20, "b": 20} and lowered(SIZES, 0.5) == {"a": 40, "b": 20}


def test_weights_are_those_of_torch() -> None:
    import torch
    from torch.nn import functional

    bundle = some(SIZES)
    done = balanced(bundle)
    assert done.data is bundle.data and done.notes["weights"] == pytest.approx({"a": 0.625, "b": 2.5})
    field = vars(done.task)["targets"]["kind"].fit(["a", "b"])
    assert isinstance(field, Category)
    torch.manual_seed(0)
    scores, truth = torch.randn(12, 2, dtype=torch.float64), torch.randint(0, 2, (12,))
    losses, shares = field.loss(scores, truth)
    wanted = functional.cross_entropy(scores, truth, weight=torch.tensor([0.625, 2.5], dtype=torch.float64))
    assert float(losses.sum() / shares.sum()) == pytest.approx(float(wanted), rel=1e-12)
    assert Category.model_validate_json(field.model_dump_json()) == field


def test_weights_raise_the_recall_of_the_rare_label(tmp_path: Path) -> None:
    """Two overlapping normals, 5% of one: unweighted, the boundary sits where nearly all are called frequent."""
    dice = np.random.default_rng(0)
    kinds = np.where(dice.random(800) < 0.05, "rare", "usual")
    rows = rows_of({"x": (dice.normal(size=800) + 1.5 * (kinds == "rare")).tolist(), "kind": kinds.tolist()})
    task = {"supervised": {"inputs": {"x": "number"}, "targets": {"kind": "category"}}}
    recalls = []
    for steps in ((), ("balance",)):
        bundle = bundle_of(task, {"mlp": {"hidden": [4]}}, rows)
        for step in (*steps, {"train": {"epochs": 15, "learning_rate": 0.02}}):
            bundle = apply(resolve("steps", step), bundle, Run(tmp_path))
        answers = bundle.predictor()(bundle.task.rows_to_requests(rows.take(np.flatnonzero(kinds == "rare"))))
        recalls.append(np.mean([answer["kind"]["value"] == "rare" for answer in answers]))
    assert recalls[0] < 0.2 and recalls[1] > 0.6


def test_copies_and_fewer() -> None:
    bundle = some(SIZES)
    more = balanced(bundle, how="over")
    assert Counter(train(more).column("kind")) == {"a": 80, "b": 80}
    seen = Counter(train(more).column("row"))
    assert {seen[row] for row in range(80)} == {1} and {seen[row] for row in range(80, 100)} == {4}
    assert set(train(more).ids) == set(train(bundle).ids)  # a copy is the row that it copies
    fewer = balanced(bundle, how="under")
    assert (
        Counter(train(fewer).column("kind")) == {"a": 20, "b": 20}
        and max(Counter(train(fewer).column("row")).values()) == 1
    )
    assert more.data is not None and bundle.data is not None
    assert more.data["validation"] is bundle.data["validation"]
    assert more.notes["labels"] == {"in": SIZES, "out": {"a": 80, "b": 80}}
    assert more.notes["told"] == ["100 -> 160 training rows (over): b 20 -> 80"]
    assert train(balanced(bundle, how="under", seed=1)).column("row") != train(fewer).column("row")


def test_neighbours_are_those_of_scikit_learn() -> None:
    from sklearn.neighbors import NearestNeighbors

    points = np.random.default_rng(0).normal(size=(600, 4))
    theirs = NearestNeighbors(n_neighbors=6).fit(points).kneighbors(points, return_distance=False)[:, 1:]
    none = np.zeros((600, 0), np.int64)
    assert np.array_equal(neighbours(points, none, 1.0, 5), theirs)
    assert neighbours(points[:3], none[:3], 1.0, 5).shape == (3, 2)
    # A differing label counts as so much distance: the nearer point is then the farther one.
    line, labels = np.asarray([[0.0], [1.0], [1.5]]), np.asarray([[0], [1], [0]])
    assert neighbours(line, labels, 2.0, 1)[0].tolist() == [2] and neighbours(line, labels, 1.0, 1)[0].tolist() == [1]


def test_the_penalty_is_the_median_deviation_of_the_rare_rows() -> None:
    numbers = np.random.default_rng(0).normal(size=(50, 3)) * [1.0, 5.0, 0.1]
    whole = Columns(numbers, np.zeros((50, 1), np.int64))
    rare = np.arange(10)
    points, penalty = space(whole, rare)
    np.testing.assert_allclose(points, numbers[rare] / numbers.std(axis=0))
    assert penalty == pytest.approx(np.median(points.std(axis=0)) ** 2)


def test_rows_are_made_up_between_neighbours_of_their_label() -> None:
    dice = np.random.default_rng(0)
    whole = Columns(dice.normal(size=(40, 2)), dice.integers(0, 2, (40, 1)))
    rare = np.arange(30, 40)
    new, begun = made_up(whole, rare, 25, 3, np.random.default_rng(1))
    assert set(begun) == set(rare) and Counter(Counter(begun.tolist()).values()) == {2: 5, 3: 5}
    points, penalty = space(whole, rare)
    around = neighbours(points, whole.labels[rare], penalty, 3)
    for at, row in enumerate(begun.tolist()):
        ends = whole.numbers[rare[around[row - 30]]]
        away = new.numbers[at] - whole.numbers[row]
        lines = ends - whole.numbers[row]
        cross = lines[:, 0] * away[1] - lines[:, 1] * away[0]
        shares = (lines @ away) / (lines**2).sum(axis=1)
        assert any(abs(c) < 1e-9 and -1e-9 <= s <= 1 + 1e-9 for c, s in zip(cross, shares, strict=True))
        votes = Counter(whole.labels[rare[around[row - 30]], 0].tolist())
        assert new.labels[at, 0] == max(votes, key=lambda label: votes[label])


def test_synthetic_rows_of_a_table() -> None:
    bundle = some(SIZES)
    done = balanced(bundle, how="synthetic")
    made = train(done).take(np.arange(100, 160))
    assert Counter(train(done).column("kind")) == {"a": 80, "b": 80} and set(made.column("kind")) == {"b"}
    assert min(made.column("x")) > 2 and set(made.column("colour")) <= {"red", "blue"}
    assert any(not float(y).is_integer() for y in made.column("y"))  # between two whole numbers
    assert train(done).take(range(100)).column("x") == train(bundle).column("x")
    assert len(set(train(done).ids)) == 160 and all(str(one).startswith("made:") for one in made.ids)
    again = balanced(some(SIZES), how="synthetic")
    assert train(again).fingerprint == train(done).fingerprint
    gap = some(SIZES)
    task: Any = {"supervised": {"inputs": {**TASK["supervised"]["inputs"], "x": {"number": {"missing": "mean"}}},
                                "targets": {"kind": "category"}}}  # fmt: skip
    cells = [None if at % 9 == 0 else cell for at, cell in enumerate(train(gap).column("x"))]
    rows = rows_of({**{name: train(gap).column(name) for name in train(gap).columns}, "x": cells})
    with_gaps = balanced(bundle_of(task, {"mlp": {}}, rows), how="synthetic")
    assert len(train(with_gaps)) == 160 and None in train(with_gaps).column("x")[100:]
    alone = balanced(some({"a": 5, "b": 1}), how="synthetic")
    assert len(set(train(alone).column("x"))) == 6  # one row has no neighbour: it is copied


def test_pictures_of_rare_labels_are_changed(tmp_path: Path) -> None:
    rows = image_rows(60, 0)
    rare = np.asarray([at for at, label in enumerate(rows.column("label")) if label != "q0" or at < 8])
    bundle = bundle_of(IMAGES, {"mlp": {"hidden": [4]}}, rows.take(rare), image_rows(20, 1))
    done = balanced(bundle, how="augmented", augments=[{"affine": {"degrees": 20}}])
    counts = Counter(train(done).column("label"))
    assert len(set(counts.values())) == 1
    old, new = train(bundle).column("image"), train(done).column("image")
    assert new[: len(old)] == old and not set(new[len(old) :]) & set(old)
    again = balanced(bundle, how="augmented", augments=[{"affine": {"degrees": 20}}])
    assert train(again).column("image") == new
    assert train(balanced(bundle, 1, how="augmented", augments=[{"affine": {"degrees": 20}}])).column("image") != new
    apply(resolve("steps", {"train": {"epochs": 1}}), done, Run(tmp_path))


def test_opening_again_makes_the_same_rows(table_system: Any, cache: Path, tmp_path: Path) -> None:
    for number, how in enumerate(("over", "under", "synthetic")):
        bundle = apply(resolve("steps", "split"), table_system.fresh(), Run(tmp_path))
        done = apply(Balance(how=how), bundle, Run(tmp_path, seed=3, scope=("balance", 0)))
        back = reopen(Bundle.load(done.save(tmp_path / str(number))), cache, Run(tmp_path))
        assert train(back).fingerprint == train(done).fingerprint
        assert back.data is not None and bundle.data is not None
        assert back.data["test"].fingerprint == bundle.data["test"].fingerprint


def test_what_cannot_be_balanced(tmp_path: Path) -> None:
    number = {"supervised": {"inputs": {"x0": "number"}, "targets": {"total": "number"}}}
    pictures = bundle_of(IMAGES, {"mlp": {}}, image_rows(20, 0))
    cases: list[tuple[Bundle, dict[str, Any], str]] = [
        (bundle_of(number, {"mlp": {}}, table_rows(20, 0)), {}, "only labels can be rare"),
        (pictures, {"how": "synthetic"}, "between two images lies no third one"),
        (bundle_of(BOTH, {"mlp": {}}, table_rows(20, 0)), {"how": "synthetic"}, "no other target than its label"),
        (some(SIZES), {"how": "augmented", "augments": ["affine"]}, "where one input is an image"),
        (some(SIZES), {"target": "colour"}, "colour is none of the targets"),
    ]
    for bundle, fields, told in cases:
        with pytest.raises(Refused, match=told):
            balanced(bundle, **fields)
    with pytest.raises(LuodiError, match="have 1 label in 'kind'"):
        balanced(some({"a": 5}))
    for fields in ({"how": "augmented"}, {"augments": ["affine"]}):
        with pytest.raises(ValueError, match="`augments` says how"):
            Balance(**fields)
    plain = {"supervised": {"inputs": {"x": "number"}, "targets": {"kind": "category"}}}
    weighed = balanced(bundle_of(plain, {"mlp": {}}, train(some(SIZES))))
    with pytest.raises(Refused, match="counts all labels alike"):
        apply(resolve("steps", "by_hand"), weighed, Run(tmp_path))
    with pytest.raises(LuodiError, match="an input has no use for this"):
        resolve(
            "tasks",
            {
                "supervised": {
                    "inputs": {"colour": {"category": {"weights": {"red": 2.0}}}},
                    "targets": {"kind": "category"},
                }
            },
        )
