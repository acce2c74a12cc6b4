"""The supervised task: fitting, requests, losses, exams, scores, schemas; several inputs and targets."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from luodi.core.catalog import resolve
from luodi.core.errors import BadRequest, LuodiError
from luodi.core.predictor import Predictor
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.thing import WrongThing, dump
from luodi.tasks.supervised import Supervised

WRITTEN = {
    "supervised": {
        "inputs": {
            "photo": {"image": {"size": 6, "channels": 1}},
            "mean radius": "number",
            "shop": {"category": {"unseen": "other"}},
        },
        "targets": {"label": "category", "price": {"number": {"weight": 0.5}}},
    }
}


def png(value: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(value).save(buffer, format="PNG")
    return buffer.getvalue()


def some_rows(count: int, seed: int = 0) -> Rows:
    dice = np.random.default_rng(seed)
    return Rows.of(
        [
            {
                "photo": png(dice.integers(0, 256, (6, 6), dtype=np.uint8)),
                "mean radius": float(dice.normal(10, 2)),
                "shop": "ab"[index % 2],
                "label": "xyz"[index % 3],
                "price": float(dice.normal(100, 20)),
                "unused": index,
            }
            for index in range(count)
        ]
    )


ROWS = some_rows(150)
TASK: Supervised = resolve("tasks", WRITTEN).fit(ROWS)


def knowing(rows: Rows, task: Supervised) -> Predictor:
    """A predictor that gives each row its truth back, by the number among its inputs."""
    known = dict(zip(task.encode(task.rows_to_requests(rows))["mean radius"][:, 0].tolist(), rows, strict=True))

    def forward(arrays):
        found = [known[value] for value in arrays["mean radius"][:, 0].tolist()]
        label = task.targets["label"].encode([row["label"] for row in found])[""]
        price = task.targets["price"].encode([row["price"] for row in found])[""]
        return {"label": 9 * np.eye(3, dtype=np.float32)[label], "price": price}

    return Predictor(task, forward)


def test_what_cannot_be_written():
    image, number = {"image": {"size": 8}}, "number"

    def problems(inputs, targets) -> str:
        with pytest.raises(WrongThing) as caught:
            resolve("tasks", {"supervised": {"inputs": inputs, "targets": targets}})
        return str(caught.value)

    assert "targets.mask: image cannot be a target; these can: category, number" in problems(
        {"a": number}, {"mask": image}
    )
    assert "supervised.targets" in problems({"a": number}, {}) and "supervised.inputs" in problems({}, {"y": number})
    assert "is an input too" in problems({"y": number}, {"y": "category"})
    assert "gaps cannot be filled" in problems({"a": number}, {"y": {"category": {"unseen": "other"}}})
    assert "gaps cannot be filled" in problems({"a": number}, {"y": {"number": {"missing": "mean"}}})
    assert "weight" in problems({"a": {"number": {"weight": 2}}}, {"y": number})
    assert "label_smoothing" in problems({"a": {"category": {"label_smoothing": 0.1}}}, {"y": number})
    assert "above 0" in problems({"a": number}, {"y": {"number": {"weight": 0}}})
    assert "did you mean 'number'" in problems({"a": "numbre"}, {"y": number})


def test_fit_fills_every_blank_and_survives_json():
    assert TASK.targets["label"].values == ("x", "y", "z") and TASK.inputs["shop"].values == ("a", "b")
    assert TASK.inputs["mean radius"].mean == pytest.approx(np.mean(ROWS.column("mean radius")))
    again = resolve("tasks", json.loads(json.dumps(dump(TASK))))
    assert again == TASK and again.fit(some_rows(9, seed=4)) == TASK
    assert resolve("tasks", {"classification": WRITTEN["supervised"]}).fit(ROWS) == TASK  # a name for the plain case
    assert TASK.gives == {"loss"}


def test_fit_says_which_column_or_row_is_wrong():
    task = resolve("tasks", WRITTEN)
    with pytest.raises(LuodiError, match=r"no column 'mean radius'; did you mean 'mean_radius'"):
        task.fit(Rows(ROWS.table.rename_columns([name.replace(" ", "_") for name in ROWS.columns])))
    rows = [dict(row) for row in ROWS[:5]]
    rows[3]["mean radius"] = None
    with pytest.raises(BadRequest, match=r"mean radius: row 3: a number is missing"):
        task.fit(Rows.of(rows))


def test_specs():
    found = {name: (spec.kind, spec.shape, spec.size, spec.dtype) for name, spec in TASK.inputs_specs().items()}
    assert found == {
        "photo": ("image", (1, 6, 6), 1, "float32"),
        "mean radius": ("number", (1,), 0, "float32"),
        "shop": ("category", (), 3, "int64"),
    }
    outputs = {name: (spec.kind, spec.shape, spec.size) for name, spec in TASK.outputs_specs().items()}
    assert outputs == {"label": ("category", (3,), 3), "price": ("number", (1,), 0)}


def test_read_takes_inputs_and_refuses_the_rest():
    wire = {"photo": [[0, 255], [255, 0]], "mean radius": "9.5", "shop": "new"}
    request = TASK.read(wire)
    assert request["mean radius"] == 9.5 and request["photo"].shape == (2, 2) and request["shop"] == "new"
    assert TASK.read({**wire, "label": "x", "price": 3}).keys() == request.keys()
    np.testing.assert_array_equal(TASK.read(json.loads(json.dumps(TASK.write(request))))["photo"], request["photo"])
    with pytest.raises(BadRequest, match=r"photos: unknown column; did you mean 'photo'"):
        TASK.read({**wire, "photos": 1})
    with pytest.raises(BadRequest, match=r"shop: missing; needed: photo, mean radius, shop"):
        TASK.read({name: wire[name] for name in ("photo", "mean radius")})
    with pytest.raises(BadRequest, match=r"mean radius: expected a number, got 'wide'"):
        TASK.read({**wire, "mean radius": "wide"})
    with pytest.raises(BadRequest, match=r"expected an object with photo"):
        TASK.read([wire])


def test_requests_of_rows_encode_as_requests_of_the_wire():
    requests = TASK.rows_to_requests(ROWS)
    assert len(requests) == 150 and requests[0].keys() == TASK.inputs.keys()
    stored = TASK.encode(requests)
    sent = TASK.encode([TASK.read(json.loads(json.dumps(TASK.write(request)))) for request in requests])
    assert stored.keys() == TASK.inputs_specs().keys()
    for name, spec in TASK.inputs_specs().items():
        assert stored[name].shape == (150, *spec.shape) and str(stored[name].dtype) == spec.dtype
        np.testing.assert_array_equal(stored[name], sent[name])
    for name, array in TASK.encode(requests[7:8]).items():  # a row's arrays do not depend on its neighbours
        np.testing.assert_array_equal(array[0], stored[name][7])
    broken = [dict(row) for row in ROWS[:4]]
    broken[2]["photo"] = b"no picture"
    with pytest.raises(BadRequest, match=r"photo: row 2: expected an image"):
        TASK.rows_to_requests(Rows.of(broken))


def test_loss_holds_each_target_with_its_share():
    truth = {name: torch.as_tensor(array) for name, array in TASK.truth(ROWS[:10]).items()}
    outputs = {"label": torch.randn(10, 3), "price": torch.randn(10, 1)}
    found = TASK.loss(lambda **batch: outputs, {}, truth)
    assert {name: share for name, (_, _, share) in found.items()} == {"label": 1.0, "price": 0.5}
    torch.testing.assert_close(
        found["label"][0], torch.nn.functional.cross_entropy(outputs["label"], truth["label"], reduction="none")
    )
    torch.testing.assert_close(found["price"][0], (outputs["price"] - truth["price"])[:, 0] ** 2)
    assert all(weights.tolist() == [1] * 10 for _, weights, _ in found.values())


def test_samples_and_examples(tmp_path: Path):
    run = Run(tmp_path, seed=3)
    held = {request["mean radius"] for request in TASK.rows_to_requests(ROWS)}
    chosen = [request["mean radius"] for request in TASK.samples(ROWS, 40, run)]
    assert len(set(chosen)) == 40 and set(chosen) <= held
    assert chosen == [request["mean radius"] for request in TASK.samples(ROWS, 40, run)]
    assert chosen != [request["mean radius"] for request in TASK.samples(ROWS, 40, run.at("else"))]
    assert len(TASK.samples(ROWS[:3], 8, run)) == 8
    for requests in (TASK.samples(None, 8, run), TASK.examples(8, seed=1)):
        assert len(requests) == 8 and {request["shop"] for request in requests} == {"a", "b", None}
        assert len({request["photo"].shape for request in requests}) >= 4
        TASK.encode(requests)
    first, second = (TASK.write(TASK.examples(8, seed=seed)[0]) for seed in (1, 2))
    assert first != second


def test_examine_answers_in_order_and_scores():
    exam = TASK.examine(knowing(ROWS, TASK), ROWS, 60.0)
    assert len(exam) == 150 and exam.ids.tolist() == ROWS.ids.tolist()
    assert set(exam.columns) == {
        "label.value", "label.truth", "label.probabilities", "price.value", "price.truth",
    }  # fmt: skip
    assert exam.columns["label.truth"].tolist() == ROWS.column("label")
    assert exam.columns["label.probabilities"].shape == (150, 3)
    assert exam.columns["price.truth"].dtype == np.float64
    scores = TASK.score(exam)
    assert list(scores) == list(TASK.metrics()) and next(iter(scores)) == "label.accuracy"
    assert scores["label.accuracy"] == scores["label.auc"] == 1.0
    assert scores["price.rmse"] == pytest.approx(0, abs=1e-4) and scores["price.r2"] == pytest.approx(1)
    assert TASK.metrics()["label.loss"] == TASK.metrics()["price.rmse"] == "lower"
    half = exam.take(np.arange(0, 150, 2))
    assert TASK.score(half)["label.accuracy"] == 1.0


def test_examine_stops_when_the_seconds_are_used_up():
    exam = TASK.examine(knowing(ROWS, TASK), ROWS, 0.0)
    assert len(exam) == 64 and exam.ids.tolist() == ROWS.ids[:64].tolist()


def test_examine_says_which_row_is_bad():
    rows = [dict(row) for row in ROWS]
    rows[97]["label"] = "w"
    with pytest.raises(BadRequest, match=r"label: row 97: unknown label 'w'.*allowed: x, y, z"):
        TASK.examine(knowing(ROWS, TASK), Rows.of(rows), 60.0)
    for nothing in (None, ROWS[:0]):
        with pytest.raises(LuodiError, match="held-out rows"):
            TASK.examine(knowing(ROWS, TASK), nothing, 1.0)


def test_serving_needs_no_torch():
    code = """
import json, sys
from luodi.core.catalog import resolve
task = resolve("tasks", json.loads(sys.argv[1]))
assert not {"torch", "PIL", "sklearn"} & set(sys.modules), "imported before it was used"
requests = [task.read(json.loads(json.dumps(task.write(request)))) for request in task.examples(8, 0)]
arrays = task.encode(requests)
answers = task.decode({"label": arrays["photo"].reshape(8, -1)[:, :3], "price": arrays["mean radius"]})
assert len(answers) == 8 and task.wire_schema() and "torch" not in sys.modules, "torch is no part of serving"
"""
    subprocess.run([sys.executable, "-c", code, json.dumps(dump(TASK))], check=True)


def test_answers_and_requests_fit_the_schemas():
    from jsonschema import Draft202012Validator

    schemas = TASK.wire_schema()
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    answers = knowing(ROWS, TASK)(TASK.rows_to_requests(ROWS)[:3])
    assert list(answers[0]) == ["label", "price"] and answers[1]["label"]["value"] == "y"
    for answer in answers:
        Draft202012Validator(schemas["answer"]).validate(json.loads(json.dumps(answer)))
    for request in TASK.examples(6, seed=0):
        Draft202012Validator(schemas["request"]).validate(json.loads(json.dumps(TASK.write(request))))
    assert not Draft202012Validator(schemas["request"]).is_valid({"photo": "x"})
    Draft202012Validator.check_schema(resolve("tasks", WRITTEN).wire_schema()["request"])  # before it is fitted
