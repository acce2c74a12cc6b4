"""The category field: labels, answers, losses, and metrics against scikit-learn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luodi.core.errors import BadRequest, LuodiError
from luodi.fields.category import Category


def test_labels_are_text_in_a_stable_order():
    assert Category().fit([10, 9, 9.0, "2", np.int64(1)]).values == ("1", "2", "9", "10")
    assert Category().fit(["b", "a", "10", "9"]).values == ("10", "9", "a", "b")
    assert Category().fit([True, False]).values == ("False", "True")
    assert Category(values=[3, 1, 2]).values == ("3", "1", "2")
    for wrong in ([], ["a", "a"], [1, "1"]):
        with pytest.raises(ValueError, match="each only once"):
            Category(values=wrong)
    with pytest.raises(LuodiError, match="at least one label"):
        Category().fit([])


def test_unknown_labels():
    field = Category().fit(["setosa", "versicolor", "virginica"])
    with pytest.raises(BadRequest, match=r"unknown label 'versicolour'; did you mean 'versicolor'.*allowed: setosa"):
        field.read("versicolour")
    with pytest.raises(BadRequest, match="unknown label 'x'"):
        field.encode(["x"])
    for gap in (None, math.nan):
        with pytest.raises(BadRequest, match="missing"):
            field.read(gap)
        with pytest.raises(BadRequest, match="missing"):
            Category().fit(["a", gap])
    with pytest.raises(BadRequest, match="list"):
        field.read(["setosa"])
    other = Category(unseen="other").fit(["a", None, "b", math.nan])
    assert other.values == ("a", "b") and other.specs()[""].size == 3
    assert other.encode([other.read(wire) for wire in ("a", "b", "never", None)])[""].tolist() == [0, 1, 2, 2]
    assert set(other.example(5, 0)) == {"a", "b", None}


def test_a_copy_with_swapped_labels_uses_them():
    field = Category().fit("abc")
    assert field.encode(["a", "b"])[""].tolist() == [0, 1]
    swapped = field.model_copy(update={"values": ("b", "a", "c")})
    assert swapped.encode(["a", "b"])[""].tolist() == [1, 0]
    assert field.encode(["a", "b"])[""].tolist() == [0, 1]
    assert swapped.decode(np.asarray([[9.0, 0, 0]]))[0]["value"] == "b"


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(st.text(), st.integers(), st.booleans()), min_size=1, max_size=20))
def test_category_write_read_round_trip(column):
    field = Category().fit(column)
    values = [field.read(cell) for cell in column]
    assert [field.read(json.loads(json.dumps(field.write(value)))) for value in values] == values
    assert [field.values[place] for place in field.encode(values)[""]] == values


def test_category_answers_hold_every_probability():
    field = Category(values=("x", "y", "z"))
    logits = np.asarray([[1.0, 2.0, 0.0], [1000.0, -1000.0, 0.0]], np.float32)
    first, second = field.decode(logits)
    powers = np.exp([1.0, 2.0, 0.0])
    assert first["value"] == "y" and second["value"] == "x"
    assert list(first["probabilities"].values()) == pytest.approx((powers / powers.sum()).tolist(), rel=1e-12)
    assert second["probabilities"] == {"x": 1.0, "y": 0.0, "z": 0.0}
    record = field.record([first, second], ["y", "z"])
    assert record["probabilities"].shape == (2, 3) and record["value"].tolist() == ["y", "x"]
    assert field.score(record)["loss"] < 20  # a probability of 0 is not an infinite loss


def test_cross_entropy_with_smoothing_is_the_closed_form():
    import torch

    logits, truth = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 3.0]]), torch.tensor([0, 1])
    logs = torch.log_softmax(logits, 1)
    for smoothing in (0.0, 0.3):
        field = Category(values=("a", "b", "c"), label_smoothing=smoothing)
        losses, weights = field.loss(logits, truth)
        expected = -(1 - smoothing) * logs[[0, 1], truth] - smoothing * logs.mean(1)
        torch.testing.assert_close(losses, expected)
        assert weights.tolist() == [1, 1]


def calibration_by_hand(truth, value, shares):
    total = 0.0
    for low in range(15):
        rows = [i for i, row in enumerate(shares) if low / 15 < max(row) <= (low + 1) / 15]
        if rows:
            right = sum(truth[i] == value[i] for i in rows) / len(rows)
            total += len(rows) / len(truth) * abs(right - sum(max(shares[i]) for i in rows) / len(rows))
    return total


@pytest.mark.parametrize("labels", [2, 3, 7])
def test_category_scores_as_scikit_learn(labels):
    from sklearn import metrics

    field = Category(values=tuple(f"label {k}" for k in range(labels)))
    throws = np.random.default_rng(labels)
    for round_ in range(12):
        rows = int(throws.integers(8, 60))
        truth = throws.integers(0, labels, rows)
        if round_ % 3 == 2 and labels > 2:
            truth = np.minimum(truth, 1)  # labels that no row of the resample has
        shares = throws.dirichlet(np.ones(labels), rows)
        if round_ % 2:
            shares = np.round(shares, 1) + 0.01  # ties
            shares /= shares.sum(1, keepdims=True)
        shares = shares.astype(np.float32)
        value = shares.argmax(1)
        names = np.asarray(field.values, object)
        found = field.score({"truth": names[truth], "value": names[value], "probabilities": shares})
        assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, value))
        assert found["loss"] == pytest.approx(-np.log(shares[np.arange(rows), truth].astype(float)).mean())
        for how in ("macro", "weighted", "micro"):
            scores = metrics.precision_recall_fscore_support(truth, value, average=how, zero_division=0)
            for name, expected in zip(("precision", "recall", "f1"), scores, strict=False):
                assert found[f"{name}_{how}"] == pytest.approx(expected), (name, how)
        areas = [
            metrics.roc_auc_score(truth == k, shares[:, k]) for k in np.unique(truth) if 0 < (truth == k).mean() < 1
        ]
        assert found["auc"] == pytest.approx(np.mean(areas))
        assert found["ece"] == pytest.approx(calibration_by_hand(truth, value, shares.tolist()), abs=1e-6)
    assert list(found) == list(Category.better) and next(iter(Category.better)) == "accuracy"


def test_a_schema_lists_labels_while_a_person_could_read_them():
    few, many = Category(values=("a", "b")), Category(values=tuple(map(str, range(5000))))
    assert few.wire_schema()["enum"] == ["a", "b"] and "enum" not in many.wire_schema()
    assert few.answer_schema()["properties"]["probabilities"]["required"] == ["a", "b"]
    assert len(json.dumps(many.answer_schema())) < 500 and "enum" not in Category().wire_schema()


def test_one_label_alone_has_no_area():
    field = Category(values=("a", "b"))
    found = field.score({"truth": np.asarray(["a", "a"]), "value": np.asarray(["a", "b"]), "probabilities": np.eye(2)})
    assert math.isnan(found["auc"]) and found["accuracy"] == 0.5
