"""Normalisation of fields against scikit-learn; fitted on the training split alone, undone for answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import preprocessing
from small_data import bundle_of, table_rows

from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.run import Run
from luodi.core.source import rows_of
from luodi.core.thing import WrongThing, dump, make
from luodi.fields.image import Image
from luodi.fields.number import Number

KINDS = ["none", "standard", "range", "robust", "log", "quantile"]
COLUMNS = {
    "normal": np.random.default_rng(0).normal(50, 9, 300),
    "skewed": np.random.default_rng(1).lognormal(2, 2, 300),
    "outliers": np.r_[np.random.default_rng(2).normal(size=298), 1e6, -1e6],
    "ties": np.random.default_rng(3).integers(0, 4, 300).astype(float),
    "half zero": np.r_[np.zeros(150), np.random.default_rng(4).exponential(size=150)],
    "short": np.asarray([3.0, 1.0, 2.0]),
}
UNSEEN = {name: np.linspace(column.min(), column.max(), 77) for name, column in COLUMNS.items()}


def theirs(kind, column):
    rows = column[:, None]
    scaler = {
        "none": preprocessing.FunctionTransformer(),
        "standard": preprocessing.StandardScaler(),
        "range": preprocessing.MinMaxScaler(),
        "robust": preprocessing.RobustScaler(),
        "quantile": preprocessing.QuantileTransformer(n_quantiles=min(1000, len(column)), subsample=None),
    }[kind]
    return scaler.fit(rows)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("kind", ["none", "standard", "range", "robust", "quantile"])
def test_numbers_are_scaled_as_scikit_learn_scales_them(kind, name):
    field, scaler = Number(normalize=kind).fit(COLUMNS[name].tolist()), theirs(kind, COLUMNS[name])
    for values in (COLUMNS[name], UNSEEN[name], UNSEEN[name] * 3 - 1):
        expected = scaler.transform(values[:, None])
        np.testing.assert_allclose(field.encode(values.tolist())[""], expected, rtol=2e-6, atol=2e-6)
    output = np.linspace(-0.5, 1.5, 40)[:, None].astype(np.float32)
    answers = [answer["value"] for answer in field.decode(output)]
    expected = scaler.inverse_transform(output.astype(np.float64).clip(0, 1) if kind == "quantile" else output)
    np.testing.assert_allclose(answers, expected[:, 0], rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["normal", "skewed", "half zero"])
def test_log_is_the_standardised_log1p(name):
    column = np.abs(COLUMNS[name])
    scaler = preprocessing.StandardScaler().fit(np.log1p(column)[:, None])
    field = Number(normalize="log").fit(column.tolist())
    expected = scaler.transform(np.log1p(column)[:, None])
    np.testing.assert_allclose(field.encode(column.tolist())[""], expected, rtol=1e-5, atol=1e-6)
    mirrored = Number(normalize="log", log_mean=0.0, log_scale=1.0).encode([-v for v in column])[""]
    np.testing.assert_allclose(mirrored[:, 0], -np.log1p(column), rtol=1e-6)
    assert np.isfinite([answer["value"] for answer in field.decode(np.asarray([[1e30], [-1e30]]))]).all()


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("kind", KINDS)
def test_answers_come_back_on_the_columns_own_scale(kind, name):
    column = COLUMNS[name]
    field = Number(normalize=kind).fit(column.tolist())
    back = np.asarray([answer["value"] for answer in field.decode(field.encode(column.tolist())[""])])
    if name == "ties":
        assert set(back.round(4)) == {0, 1, 2, 3}  # a tie's middle rank is the tie
    far = np.abs(column).max() if kind != "log" else np.abs(column)
    np.testing.assert_array_less(np.abs(back - column), 3e-5 * far + 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fitted_field_is_plain_data_and_is_not_fitted_again(kind):
    field = Number(normalize=kind, missing="mean").fit(COLUMNS["skewed"].tolist())
    assert resolve("fields", json.loads(json.dumps(dump(field)))) == field == field.fit([1.0, 2.0, 99.0])
    given = set(field.model_dump(exclude_none=True)) - set(Number().model_dump(exclude_none=True))
    blanks = {"robust": {"median", "width"}, "log": {"log_mean", "log_scale"}, "quantile": {"knots"}}
    blanks |= {"none": set(), "standard": {"scale"}, "range": {"low", "high"}}
    assert given == {"mean", *blanks[kind]}
    np.testing.assert_array_equal(field.encode([None])[""], field.encode([field.mean])[""])
    seen = [value for value in field.example(60, 1) if value is not None]
    assert np.isfinite(seen).all() and field.wire_schema()["description"].startswith("A number")
    if kind in ("range", "quantile"):
        assert min(seen) < COLUMNS["skewed"].min() and max(seen) > COLUMNS["skewed"].max()


@pytest.mark.parametrize("kind", ["robust", "log", "quantile"])
def test_a_constant_column_is_finite_and_comes_back(kind):
    field = Number(normalize=kind).fit([7.0] * 9)
    found = field.encode([7.0, 8.0])[""]
    assert np.isfinite(found).all() and found[0, 0] == 0
    assert field.decode(found[:1])[0]["value"] == pytest.approx(7)


def test_knots_rise():
    for knots in ([], [2.0, 1.0]):
        with pytest.raises(WrongThing, match="rising"):
            make("fields", {"number": {"normalize": "quantile", "knots": knots}})


MODEL = {"mlp": {"hidden": [64]}}
PICTURES = [np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8) // (seed + 1) for seed in range(4)]


def test_images_are_standardised_as_scikit_learn_does_a_channel():
    field = Image(size=(6, 5)).fit(PICTURES)
    flat = np.concatenate([picture.reshape(-1, 3) for picture in PICTURES]) / 255
    scaler = preprocessing.StandardScaler().fit(flat)
    np.testing.assert_allclose(field.mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(field.std, scaler.scale_, rtol=1e-12)
    found = field.encode(PICTURES)[""].transpose(0, 2, 3, 1).reshape(-1, 3)
    np.testing.assert_allclose(found, scaler.transform(flat), rtol=1e-4, atol=1e-5)


def test_images_have_four_scales():
    def encoded(**fields):
        return Image(size=(6, 5), **fields).encode(PICTURES)[""]

    raw = np.stack(PICTURES).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(encoded(normalize="none"), raw.astype(np.float32))
    np.testing.assert_array_equal(encoded(normalize="scale"), raw.astype(np.float32) / np.float32(255))
    symmetric = encoded(normalize="symmetric")
    np.testing.assert_allclose(symmetric, raw / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(symmetric, encoded(mean=[0.5] * 3, std=[0.5] * 3))
    assert Image(size=(6, 5), normalize="symmetric").fit([]).mean is None


@pytest.mark.parametrize("kind", KINDS)
def test_fitted_on_the_training_rows_alone_and_kept_in_the_bundle(kind, tmp_path):
    """Other rows do not move a bit of what was fitted; a target so scaled is learned, answered and saved."""
    inputs = {name: {"number": {"normalize": kind}} for name in ("x0", "x1", "x2")}
    task = {"supervised": {"inputs": inputs, "targets": {"total": {"number": {"normalize": kind}}}}}
    train, others = table_rows(256, 0), table_rows(64, 1)
    wild = rows_of({name: [value * 1e3 for value in others.column(name)] for name in ("x0", "x1", "x2", "total")})
    step = make("steps", {"train": {"epochs": 25, "batch_size": 32, "learning_rate": 0.02}})
    run = Run(tmp_path / "run")
    done = step(bundle_of(task, MODEL, train, others), run)
    assert done.task == bundle_of(task, MODEL, train, wild).ready(run).task
    assert done.task.inputs["x0"] == Number(normalize=kind).fit(train.column("x0"))
    assert done.notes["history"][-1]["validation"]["total.r2"] > 0.9
    again = Bundle.load(done.save(tmp_path / "bundle"))
    assert again.task == done.task
    requests = done.task.rows_to_requests(others)
    assert again.predictor()(requests) == done.predictor()(requests)
