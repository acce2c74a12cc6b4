"""Distillation: the losses by hand, and a student of another architecture that learns from a teacher's answers."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
import pytest
import torch
from small_data import TOTALS, Run, bundle_of, image_rows, images_bundle, sha, table_bundle

from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError, Refused
from luodi.core.source import Data, rows_of
from luodi.core.thing import WrongThing, make
from luodi.train.loop.teaching import Teaching, alike, distance

QUICK = {"train": {"epochs": 4, "learning_rate": 0.01}}


def step(name: str, **fields: Any) -> Any:
    return make("steps", {name: fields})


def taught(bundle: Bundle, folder: Any, **fields: Any) -> Bundle:
    return apply(step("distil", **{"train": QUICK, **fields}), bundle, Run(folder))


def teacher(folder: Any, epochs: int = 12) -> Bundle:
    bundle = images_bundle({"convnet": {"widths": [16], "hidden": 32}}, 192)
    return apply(step("train", epochs=epochs, learning_rate=0.01), bundle, Run(folder / "teacher"))


def test_the_distance_of_labels_is_the_papers():
    own, theirs = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * log(3), 0.0]])
    each, weights = distance("category", own, theirs, None, 2.0)
    # At temperature 2 the teacher says 3/4 and 1/4, the student 1/2 and 1/2.
    assert each.item() == pytest.approx(4 * (0.75 * log(1.5) + 0.25 * log(0.5)), rel=1e-5) and weights.item() == 1
    assert distance("category", theirs, theirs, None, 3.0)[0].item() == pytest.approx(0, abs=1e-6)


def test_tokens_count_where_they_are_real_and_numbers_by_their_squares():
    dice = torch.Generator().manual_seed(0)
    own, theirs = torch.randn(2, 5, 7, generator=dice), torch.randn(2, 5, 7, generator=dice)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    each, weights = distance("tokens", own, theirs, mask, 1.0)
    alone = distance("tokens", own[:1, :3], theirs[:1, :3], None, 1.0)[0]
    assert weights.tolist() == [3, 5] and each[0].item() == pytest.approx(alone.item(), rel=1e-5)
    assert distance("number", torch.tensor([[3.0]]), torch.tensor([[1.0]]), None, 2.0)[0].tolist() == [4.0]


def test_places_that_are_none_say_nothing():
    dice = torch.Generator().manual_seed(0)
    own, theirs = torch.randn(1, 6, 2, generator=dice), torch.randn(1, 6, 2, generator=dice)
    real = torch.tensor([[True, False, True, True, False, True]])
    each, weights = distance("sequence", own, theirs, real, 2.0)
    kept = real[0].nonzero().flatten()
    columns = [distance("category", own[:, kept, at], theirs[:, kept, at], None, 2.0)[0].item() for at in (0, 1)]
    assert each.item() == pytest.approx(sum(columns) / 2, rel=1e-5) and weights.item() == 1


def test_features_are_alike_by_the_papers_formula():
    vectors = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    found = alike(vectors)  # products [[1, 1], [1, 2]], rows of length 1
    assert found.flatten().tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0.2**0.5, 2 * 0.2**0.5], rel=1e-5)
    turned = vectors @ torch.linalg.qr(torch.randn(2, 2))[0]
    assert torch.allclose(alike(turned), found, atol=1e-5), "turning the space changes nothing"


def test_the_shares_of_task_and_teacher(tmp_path):
    bundle = teacher(tmp_path, 1)
    other = images_bundle({"mlp": {"hidden": [8]}}).ready(Run(tmp_path))
    assert bundle.model is not None and other.model is not None
    batch = {"image": torch.rand(6, 1, 8, 8)}
    truth = {"label": torch.tensor([0, 1, 2, 3, 0, 1])}
    other.model.train()
    with Teaching(bundle.task, bundle.model.eval(), other.model, 0.25, 2.0, 0.5) as teaching:
        losses = teaching(other.model, batch, truth)
    plain = bundle.task.loss(other.model, batch, truth)["label"]
    assert torch.equal(losses["label"][0], plain[0]) and losses["label"][2] == 0.75
    assert losses["label, taught 0"][2] == 0.25 and losses["features 0"][2] == 0.5
    own, theirs = other.model(**batch)["label"], bundle.model(**batch)["label"]
    assert torch.allclose(losses["label, taught 0"][0], distance("category", own, theirs, None, 2.0)[0])
    assert not other.model._forward_hooks and not bundle.model.heads._forward_pre_hooks


def test_a_student_of_another_architecture_answers_as_its_teacher(tmp_path):
    bundle = teacher(tmp_path)
    requests = bundle.task.rows_to_requests(image_rows(200, 7))
    said = [answer["label"]["value"] for answer in bundle.predictor()(requests)]
    after = taught(bundle.fork(), tmp_path / "a", model={"mlp": {"hidden": [32]}}, soft=1.0, features=0.1,
                   train={"train": {"epochs": 30, "learning_rate": 0.01}})  # fmt: skip
    assert type(after.model).__name__ == "MLP" and after.facts >= {"model", "float", "fitted"}
    learned = [answer["label"]["value"] for answer in after.predictor()(requests)]
    assert np.mean([a == b for a, b in zip(said, learned, strict=True)]) > 0.9
    again = Bundle.load(after.save(tmp_path / "saved"))
    assert [answer["label"]["value"] for answer in again.predictor()(requests)] == learned
    assert [type(edit.step).__name__ for edit in again.edits] == ["Train", "Distil"]
    numbers = after.notes["numbers"]
    assert numbers["student"] == sum(tensor.numel() for tensor in after.model.state_dict().values())


def test_it_learns_from_the_teacher_and_not_only_from_the_rows(tmp_path):
    """Rows whose labels are noise: what the student knows, the teacher has told."""
    bundle = teacher(tmp_path)
    noisy = image_rows(192, 3)
    cells = {"image": noisy.column("image"), "label": [f"q{at % 4}" for at in range(192)]}
    wrong = bundle.replace(data=Data({**bundle.data.splits, "train": rows_of(cells)}))
    student = {"convnet": {"widths": [8], "hidden": 16, "dropout": 0.0}}
    fields = {"model": student, "train": {"train": {"epochs": 20, "learning_rate": 0.01}}}
    scores = {}
    for soft in (1.0, 0.0):
        after = taught(wrong.fork(), tmp_path / str(soft), soft=soft, **fields)
        exam = after.task.examine(after.predictor(), image_rows(200, 9), 60.0)
        scores[soft] = after.task.score(exam)["label.accuracy"]
    assert scores[1.0] > 0.9 and scores[0.0] < 0.6, scores


def test_numbers_language_and_the_same_bits_twice(tmp_path):
    totals = apply(step("train", epochs=2), table_bundle(TOTALS, {"mlp": {"hidden": [16]}}), Run(tmp_path))
    one, two = (taught(totals.fork(), tmp_path / name, model={"mlp": {"hidden": [4]}}) for name in "ab")
    assert sha(one) == sha(two)
    texts = rows_of({"text": ["to be or not to be"] * 40})
    task = {"language": {"inputs": {"text": {"text": {"tokens": "character", "length": 24, "at_least": 1}}}}}
    writer = bundle_of(task, {"gpt": {"layers": 1, "width": 16, "heads": 2, "context": 24}}, texts)
    writer = apply(step("train", epochs=1), writer, Run(tmp_path))
    after = taught(writer, tmp_path / "c", model={"gpt": {"layers": 1, "width": 8, "heads": 1, "context": 24}})
    assert after.notes["numbers"]["student"] < after.notes["numbers"]["teacher"]


def test_what_cannot_be_done_is_said(tmp_path):
    with pytest.raises(WrongThing, match="expected train with its fields"):
        step("distil", train="prune")
    with pytest.raises(WrongThing, match="leave compile out"):
        step("distil", train={"train": {"compile": True}})
    with pytest.raises(Refused, match="needs 'model'"):
        taught(images_bundle({"mlp": {}}), tmp_path)
    bundle = apply(step("train", epochs=1), images_bundle({"mlp": {"hidden": [4]}}), Run(tmp_path))
    del bundle.model.heads  # as in a model that was made elsewhere
    with pytest.raises(LuodiError, match="one of the two models has none"):
        taught(bundle, tmp_path / "x", features=0.5)
