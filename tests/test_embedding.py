"""Vectors of texts: the loss, the ranks, a published encoder as it is, and OpenAI's client against the server."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch
from serving import served
from small_data import Run, bundle_of
from texts_elsewhere import LINES, text_folder

from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.errors import BadRequest, LuodiError
from luodi.core.flow import MOST
from luodi.core.predictor import Predictor
from luodi.core.source import rows_of
from luodi.core.thing import WrongThing, make
from luodi.tasks.embedding import _ranks

WORDS = "red green blue yellow black white round flat long short".split()
OTHERS = "红 绿 蓝 黄 黑 白 圆 扁 长 短".split()


def task(**more: Any) -> Any:
    text = {"text": {"tokens": "character", "length": 16, "at_least": 1}}
    return make("tasks", {"embedding": {"inputs": {"one": text}, "partner": "other", "width": 8, **more}})


def rows(count: int = 100) -> Any:
    """Every two-word name, the first word as the tens and the second as the ones."""
    pairs = [(at // 10 % 10, at % 10) for at in range(count)]
    ones = [f"{WORDS[tens]} {WORDS[unit]}" for tens, unit in pairs]
    return rows_of({"one": ones, "other": [OTHERS[tens] + OTHERS[unit] for tens, unit in pairs]})


def learner(**more: Any) -> Bundle:
    return bundle_of(task(**more), make("models", {"bilstm": {"width": 24, "hidden": 24, "dropout": 0.0}}), rows())


class Fixed(torch.nn.Module):
    """A model whose answer is a table's row by the first token."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"vector": self.table[batch["one"][:, 0]]}


def test_the_loss_is_that_of_the_paper_in_both_directions():
    dice = np.random.default_rng(0)
    table = torch.from_numpy(dice.normal(size=(40, 8)))
    fitted = task(temperature=0.2).fit(rows())
    batch, truth = (
        {"one": torch.tensor(ids)[:, None], "one_mask": torch.ones(3, 1, dtype=torch.int64)}
        for ids in ([3, 4, 5], [13, 14, 15])
    )
    (found, weights, share) = fitted.loss(Fixed(table), batch, truth)["vector"]
    one, other = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (table[3:6].numpy(), table[13:16].numpy()))
    likeness = one @ other.T / 0.2
    there = -np.log(np.exp(np.diag(likeness)) / np.exp(likeness).sum(1))
    back = -np.log(np.exp(np.diag(likeness)) / np.exp(likeness).sum(0))
    assert np.allclose(found.numpy(), (there + back) / 2, rtol=1e-5) and weights.sum() == 3 and share == 1


def test_ranks_count_ties_against():
    same = np.eye(3)
    assert _ranks(same, same).tolist() == [1, 1, 1]
    assert _ranks(np.ones((3, 2)), np.ones((3, 2))).tolist() == [3, 3, 3], "all alike: the last of them"
    dice = np.random.default_rng(0)
    one, other = dice.normal(size=(2, 700, 5))
    slow = [1 + sum(1 for vector in other if vector @ a > other[at] @ a) for at, a in enumerate(one)]
    assert _ranks(one, other).tolist() == slow


def test_pairs_are_learned_and_found_by_vectors_of_length_one(tmp_path):
    bundle = learner()
    before = bundle.replace(data=None)
    step = make("steps", {"train": {"epochs": 30, "batch_size": 50, "learning_rate": 0.02}})
    after = apply(step, bundle, Run(tmp_path))
    found = after.task.examine(after.predictor(), rows(), 60.0)
    scores = after.task.score(found)
    assert scores["vector.recall_at_1"] > 0.9 and scores["vector.likeness"] > 0.6, scores
    assert 1 / 100 <= scores["vector.reciprocal_rank"] <= 1 and scores["vector.recall_at_10"] == 1
    assert before.model is None or before is not after
    (answer,) = after.predictor()([after.task.read({"one": "red blue"})])
    assert len(answer["vector"]["value"]) == 8 and np.linalg.norm(answer["vector"]["value"]) == pytest.approx(1)
    (again, _) = after.predictor()([after.task.read({"one": t}) for t in ("red blue", "a much longer text")])
    assert np.allclose(again["vector"]["value"], answer["vector"]["value"], atol=1e-5), "padding moves nothing"
    with pytest.raises(LuodiError, match="scored on held-out pairs"):
        after.task.examine(after.predictor(), None, 1.0)


def test_wrong_tasks_and_requests_are_refused():
    with pytest.raises(WrongThing, match="its own partner"):
        task(partner="one")
    with pytest.raises(WrongThing, match="one kind of text"):
        task(inputs={"n": "number"})
    with pytest.raises(LuodiError, match="no column 'other'"):
        task().fit(rows_of({"one": ["a"], "others": ["b"]}))
    fitted = task().fit(rows())
    for wire, told in (
        ({"txt": "a"}, "unknown key"),
        ({}, "missing"),
        ({"one": 3}, "expected a text"),
        ("a", "object"),
    ):
        with pytest.raises(BadRequest, match=told):
            fitted.read(wire)


def test_a_published_encoder_gives_its_own_pooled_states(tmp_path):
    from transformers import AutoModel, AutoTokenizer

    folder = text_folder("bert", tmp_path / "bert")
    text = {"text": {"tokens": "pretrained", "length": 32}}
    whole = {"embedding": {"inputs": {"one": text}, "partner": "other", "width": 32}}
    bundle = bundle_of(make("tasks", whole), make("models", {"pretrained_text": {"heads": "none"}}), rows())
    after = apply(make("steps", {"pretrained": {"weights": str(folder)}}), bundle, Run(tmp_path))
    tokens, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    assert after.model is not None and not after.model.training
    for line in LINES[:4]:
        with torch.no_grad():
            states = network(**tokens(line, return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
        (answer,) = after.predictor()([after.task.read({"one": line})])
        assert np.allclose(answer["vector"]["value"], states / np.linalg.norm(states), atol=1e-5)
    narrow = bundle.replace(task=make("tasks", {"embedding": {**whole["embedding"], "width": 8}}))
    with pytest.raises((LuodiError, ValueError), match="width: 32"):
        apply(make("steps", {"pretrained": {"weights": str(folder)}}), narrow, Run(tmp_path))


# ---- served ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedder")
    step = make("steps", {"train": {"epochs": 1, "batch_size": 50}})
    return apply(step, learner(), Run(folder / "work")).save(folder / "names" / "bundle")


@pytest.fixture(scope="module")
def client(path: Path) -> Generator[openai.OpenAI]:
    with (
        served(path) as running,
        openai.OpenAI(base_url=f"{running.address}/v1", api_key="none", max_retries=0, timeout=60) as one,
    ):
        yield one


def test_the_official_client_gets_the_bundles_vectors(client, path):
    bundle = Bundle.load(path)
    predict: Predictor = bundle.predictor()
    texts = ["red", "红绿", "", "a b c d e f"]
    want = [answer["vector"]["value"] for answer in predict([bundle.task.read({"one": text}) for text in texts])]
    packed = client.embeddings.create(model="names", input=texts)  # the client asks for base64 by itself
    plain = client.embeddings.create(model="names", input=texts, encoding_format="float", dimensions=8)
    for found in (packed, plain):
        assert [one.index for one in found.data] == [0, 1, 2, 3] and found.model == "names"
        assert np.allclose([one.embedding for one in found.data], want, atol=1e-6)
    counted = sum(len(ids) for ids in bundle.task.text.ids(texts))
    assert packed.usage.prompt_tokens == packed.usage.total_tokens == counted
    (alone,) = client.embeddings.create(model="names", input="red").data
    assert np.allclose(alone.embedding, want[0], atol=1e-6)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"input": [[1, 2]]}, "input"),
        ({"input": []}, "input"),
        ({"dimensions": 4}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"extra_body": {"truncate": True}}, "truncate"),
        ({"input": ["a"] * 65}, "input"),
    ],
)
def test_what_cannot_be_done_is_refused(client, more, param):
    with pytest.raises(openai.BadRequestError) as told:
        client.embeddings.create(**{"model": "names", "input": "a", **more})
    assert told.value.param == param


def test_other_paths_are_not_there(client):
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="names", prompt="a")
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="other", input="a")


def test_a_text_that_cannot_be_read_is_told_with_its_row(tmp_path):
    bundle = apply(make("steps", {"train": {"epochs": 1}}), learner(), Run(tmp_path))
    count, bad = MOST + 400, MOST + 300
    ones = ["a" * 2_000_000 if at == bad else WORDS[at % 10] for at in range(count)]
    with pytest.raises(BadRequest, match=f"row {bad}: ") as caught:
        bundle.task.examine(bundle.predictor(), rows_of({"one": ones, "other": ["红"] * count}), 60.0)
    assert caught.value.column == "one"
