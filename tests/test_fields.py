"""What holds for every field, and the number field."""

from __future__ import annotations

import json
import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luodi.core.catalog import entries, load, resolve
from luodi.core.errors import BadRequest, LuodiError
from luodi.core.thing import dump
from luodi.fields.category import Category
from luodi.fields.image import Image
from luodi.fields.number import Number

dice = np.random.default_rng(7)
GRAY = dice.integers(0, 256, (9, 7), dtype=np.uint8)
COLOUR = dice.integers(0, 256, (9, 7, 3), dtype=np.uint8)
ALPHA = dice.integers(0, 256, (9, 7, 4), dtype=np.uint8)


FITTED = {
    "image": Image(size=(6, 5), channels=3).fit([COLOUR, GRAY, ALPHA]),
    "number": Number(missing="mean").fit([1, "2", 4.5, None]),
    "category": Category().fit(["red", "green", "blue"]),
}


def test_every_field_is_here():
    assert set(entries("fields")) >= set(FITTED)


@pytest.mark.parametrize("name", FITTED)
def test_example_is_covered_by_the_wire_and_encodes_as_its_spec(name):
    field = FITTED[name]
    values = field.example(13, seed=3)
    again = [field.read(json.loads(json.dumps(field.write(value)))) for value in values]
    first, second = field.encode(values), field.encode(again)
    for end, spec in field.specs().items():
        assert first[end].shape == (13, *spec.shape) and str(first[end].dtype) == spec.dtype
        np.testing.assert_array_equal(first[end], second[end])
    other = field.example(13, seed=3)
    assert all(
        np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in zip(values, other, strict=True)
    )


@pytest.mark.parametrize("name", FITTED)
def test_a_fitted_field_survives_json(name):
    field = FITTED[name]
    assert resolve("fields", json.loads(json.dumps(dump(field)))) == field
    assert field.fit(["never looked at"] if name == "category" else [COLOUR, 5][name == "number" :][:1]) == field


@pytest.mark.parametrize("name", FITTED)
def test_schema_says_what_is_accepted(name):
    from jsonschema import Draft202012Validator

    field = FITTED[name]
    schema = field.wire_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["description"] and schema["examples"]
    check = Draft202012Validator(schema)
    for value in [*schema["examples"], *(field.write(value) for value in field.example(8, 1))]:
        check.validate(value)
        field.read(value)
    assert not check.is_valid({"an": "object"})


@pytest.mark.parametrize("normalize", ["none", "standard", "range"])
def test_number_is_brought_to_scale_and_back(normalize):
    column = dice.normal(50, 9, 200)
    field = Number(normalize=normalize).fit(column.tolist())
    found = field.encode(column.tolist())[""]
    expected = {
        "none": column,
        "standard": (column - column.mean()) / column.std(),
        "range": (column - column.min()) / np.ptp(column),
    }[normalize]
    assert found.shape == (200, 1) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose([answer["value"] for answer in field.decode(found)], column, rtol=1e-5)
    seen = field.example(40, 2)
    if normalize != "none":
        assert min(seen) < column.min() and max(seen) > column.max()


def test_a_constant_column_divides_by_nothing():
    for normalize in ("standard", "range"):
        for constant in (0.0, 0.1, 1e9):
            field = Number(normalize=normalize).fit([constant] * 7)
            np.testing.assert_allclose(field.encode([constant, constant + 1])[""][:, 0], [0, 1], atol=1e-6)


def test_number_reads_what_people_write():
    read = Number(missing="mean").read
    for wire in (3, 3.0, "3", " 3.0 ", "3e0", np.float32(3), np.int8(3), Decimal("3.0")):
        assert read(wire) == 3.0 and isinstance(read(wire), float)
    for wire in (None, "", "  ", "nan", math.nan, np.float64("nan")):
        assert read(wire) is None
        with pytest.raises(BadRequest, match="missing"):
            Number().read(wire)
    for wire in ("three", "1,5", "1_000", True, np.True_, [3], {}, b"3", math.inf, "-inf", 10**400):
        with pytest.raises(BadRequest, match=r"expected a (finite )?number"):
            read(wire)


def test_missing_numbers_become_the_mean():
    field = Number(missing="mean", normalize="range").fit([0, None, 4, "", 5])
    np.testing.assert_allclose(field.encode([None, 0.0, 5.0])[""][:, 0], [0.6, 0, 1])
    assert None in field.example(8, 0)
    with pytest.raises(LuodiError, match="none"):
        field.model_copy(update={"mean": None}).fit([None, ""])


@settings(max_examples=80, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_write_read_round_trip(value):
    field = Number()
    assert field.read(json.loads(json.dumps(field.write(field.read(value))))) == value
    assert np.isfinite(Number(mean=0.0, scale=1e-9).encode([value])[""]).all()


def test_number_scores_as_scikit_learn():
    from sklearn import metrics

    field = Number()
    for _ in range(20):
        truth = dice.normal(0, 3, 40)
        value = truth + dice.normal(0, 1, 40)
        found = field.score(field.record([{"value": float(v)} for v in value], truth.tolist()))
        assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(truth, value))
        assert found["mae"] == pytest.approx(metrics.mean_absolute_error(truth, value))
        assert found["r2"] == pytest.approx(metrics.r2_score(truth, value))
    flat = np.full(5, 2.0)
    assert field.score({"truth": flat, "value": flat})["r2"] == metrics.r2_score(flat, flat) == 1.0
    assert field.score({"truth": flat, "value": flat + 1})["r2"] == metrics.r2_score(flat, flat + 1) == 0.0
    assert list(found) == list(Number.better) and next(iter(Number.better)) == "rmse"


def test_number_losses():
    import torch

    output, truth = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.5], [1.0], [2.0]])
    expected = {"squared": [0.25, 0, 9], "absolute": [0.5, 0, 3], "huber": [0.125, 0, 2.5]}
    for distance, values in expected.items():
        losses, weights = Number(distance=distance).loss(output, truth)
        assert losses.tolist() == pytest.approx(values) and weights.tolist() == [1, 1, 1]


def test_targets_know_their_answers():
    for name in ("number", "category"):
        field = FITTED[name]
        answer = field.decode(np.zeros((1, 3 if name == "category" else 1), np.float32))[0]
        schema = field.answer_schema()
        assert set(answer) == set(schema["required"]) == set(schema["properties"])
    assert not hasattr(load("fields", "image"), "decode")
