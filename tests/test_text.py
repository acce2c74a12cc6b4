"""Texts: cut into tokens the same way everywhere, whatever people send; batches that are as long as their longest."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from small_data import bundle_of

from luodi.core.asset import Asset, assets_of
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.errors import BadRequest, Damaged, LuodiError, ParityError
from luodi.core.parity import record
from luodi.core.run import Run
from luodi.core.source import rows_of
from luodi.core.store import _seal
from luodi.core.thing import WrongThing, dump
from luodi.fields.texts.units import words
from luodi.train.loop.examples import encode_all, examples_of, lengths_of
from luodi.train.loop.sampler import Bucketed

TEXTS = [
    "今天天气很好，我们去公园散步。",
    "Hello world, it isn't 3.5 o'clock!",
    "繁體字与简体字",
    "👍🏽 ok",
    "a b",
    "好",
] * 4
KINDS = ("character", "word", "bpe", "unigram")


def field(kind: str, **more):
    return resolve("fields", {"text": {"tokens": kind, "at_least": 1, "vocabulary": 400, **more}}).fit(TEXTS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_has_a_token_and_none_too_many(kind):
    made = field(kind, length=12)
    arrays = made.encode(["", "   ", "x" * 5000, "今天天气", "\N{FAMILY}\N{ZERO WIDTH JOINER}\N{GIRL}", "\x00\x7f"])
    assert arrays[""].shape == arrays["_mask"].shape and arrays[""].shape[1] <= 12
    lengths = arrays["_mask"].sum(1)
    assert (lengths >= 1).all() and lengths.max() <= 12
    assert (arrays[""][arrays["_mask"] == 0] == made.cutter.pad).all() and (arrays[""] < made.cutter.size).all()
    assert arrays["_mask"].tolist() == [[1] * n + [0] * (arrays[""].shape[1] - n) for n in lengths]


@pytest.mark.parametrize("kind", ["character", "word", "bpe"])
def test_full_width_and_composed_letters_are_the_same_text(kind):
    made = field(kind)
    one, other = made.ids(["Ｈｅｌｌｏ　ｗｏｒｌｄ, ３.５", "Hello world, 3.5"])
    assert one == other and len(one) > 2
    assert made.ids(["cafe\u0301"]) == made.ids(["café"])
    kept = field(kind, forms="keep", case="keep")
    assert kept.ids(["Ｈｅｌｌｏ"]) != kept.ids(["Hello"])


def test_words_of_two_languages():
    assert list(words("我们去公园散步。It isn't 3.5!")) == [
        "我们",
        "去",
        "公园",
        "散步",
        "。",
        "It",
        "isn't",
        "3",
        ".",
        "5",
        "!",
    ]


def test_long_texts_lose_the_side_that_is_named():
    end, start = field("character", length=3), field("character", length=3, cut="start")
    text = "今天天气很好"
    assert end.cutter.text(end.ids([text])[0]) == "今天天" and start.cutter.text(start.ids([text])[0]) == "气很好"


@pytest.mark.parametrize("kind", ["character", "bpe", "unigram"])
def test_marks_surround_a_text_and_cannot_be_forged(kind):
    made = field(kind, marks=True, length=64)
    ids = made.ids(["<end>好\0<start>"])[0]
    assert made.ids(["好\0"])[0][1:-1] == made.ids(["好\0<end>"])[0][1:-1][: len(made.ids(["好\0"])[0]) - 2]
    assert ids[0] == 2 and ids[-1] == 3 and not {2, 3} & set(ids[1:-1])


@pytest.mark.parametrize("kind", ["character", "bpe"])
def test_known_texts_come_back(kind):
    made = field(kind, forms="nfc", case="keep", length=200)
    for text in TEXTS[:6]:
        assert made.cutter.text(made.ids([text])[0]) == text


def test_learning_a_vocabulary_does_not_depend_on_the_order_of_rows():
    made = resolve("fields", {"text": {"tokens": "word", "at_least": 1}})
    assert made.fit(TEXTS).learned == made.fit(TEXTS[::-1]).learned
    assert field("character", vocabulary=8).cutter.size == 8
    with pytest.raises(LuodiError, match="no word occurs 99 times"):
        resolve("fields", {"text": {"at_least": 99}}).fit(TEXTS)


@pytest.mark.parametrize(
    ("wire", "said"),
    [
        (None, "missing"),
        (3, "got int"),
        (["a"], "got list"),
        ("\ud83d", "surrogate"),
        (b"\xff", "UTF-8"),
        ("x" * 9, "at most 8"),
    ],
)
def test_what_is_no_text_is_refused(wire, said):
    with pytest.raises(BadRequest, match=said):
        field("word").model_copy(update={"max_characters": 8}).read(wire)


def test_an_asset_names_no_other_file():
    for name in ("/dev/zero", "../../secret", "A" * 64):
        with pytest.raises(WrongThing, match="pattern"):
            resolve("fields", {"text": {"learned": {"sha256": name}}})


def test_settings_of_a_pretrained_tokenizer_are_its_own():
    with pytest.raises(WrongThing, match="own"):
        resolve("fields", {"text": {"tokens": "pretrained", "case": "keep"}})
    with pytest.raises(LuodiError, match="pretrained"):
        resolve("fields", {"text": {"tokens": "pretrained"}}).fit(TEXTS)


BPE = {"text": {"tokens": "bpe", "at_least": 1, "vocabulary": 300, "length": 20}}
TASK = {"supervised": {"inputs": {"text": BPE}, "targets": {"label": "category"}}}


def text_bundle(model: str = "embedding_bag", count: int = 24) -> Bundle:
    rows = rows_of({"text": (TEXTS * 9)[:count], "label": ["ab"[at % 2] for at in range(count)]})
    return bundle_of(TASK, model, rows, rows)


def test_the_tokenizer_is_an_asset_of_the_bundle(tmp_path):
    bundle = record(text_bundle().ready(Run(tmp_path)))
    path = bundle.save(tmp_path / "bundle")
    (asset,) = assets_of(bundle.task)
    file = path / "assets" / asset.sha256
    assert file.read_bytes() == asset.content() and "merges" not in (path / "bundle.json").read_text()
    again = Bundle.load(path)
    assert again.task == bundle.task and dump(again.task) == dump(bundle.task)
    request = {"text": "今天 Hello 👍🏽"}
    assert again.predictor()([again.task.read(request)]) == bundle.predictor()([bundle.task.read(request)])
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(Damaged, match="was changed"):
        Bundle.load(path)


def test_another_tokenizer_fails_parity_even_with_its_hash(tmp_path):
    """A stray space before each text, the tokenizer's hash and the manifest made anew: the arrays differ."""
    bundle = record(text_bundle().ready(Run(tmp_path)))
    path = bundle.save(tmp_path / "bundle")
    (asset,) = assets_of(bundle.task)
    held = json.loads(asset.content())
    held["pre_tokenizer"]["add_prefix_space"] = True
    forged = Asset.of(json.dumps(held, ensure_ascii=False).encode())
    (path / "assets" / asset.sha256).unlink()
    forged.keep(path / "assets")
    head = json.loads((path / "bundle.json").read_text().replace(asset.sha256, forged.sha256))
    _seal(path, {key: value for key, value in head.items() if key not in ("sha256", "digest", "seal")})
    with pytest.raises(ParityError, match="preprocessing gives other arrays"):
        Bundle.load(path)


def test_examples_are_padded_to_the_longest_and_batches_are_not(tmp_path):
    bundle = text_bundle().ready(Run(tmp_path))
    rows = bundle.data["train"]
    held, told = examples_of(bundle.task, rows, "cpu", 100)
    assert "tokens on average" in told
    inputs, _ = encode_all(bundle.task, rows)
    assert inputs["text"].shape == inputs["text_mask"].shape and inputs["text"].shape[0] == len(rows)
    lengths = lengths_of(bundle.task, inputs)["text"]
    assert torch.equal(lengths, torch.from_numpy(inputs["text_mask"].sum(1)))
    for chosen in (torch.tensor([4, 5]), torch.tensor([0, 1, 4]), torch.arange(24)):
        batch, _ = held.batch(chosen)
        alone = bundle.task.encode(bundle.task.rows_to_requests(rows.take(chosen.numpy())))
        assert all(np.array_equal(batch[name].numpy(), alone[name]) for name in alone)


def test_buckets_hold_every_row_once_and_little_padding():
    sizes = torch.from_numpy(np.random.default_rng(0).integers(1, 400, 5003))
    sampler = Bucketed(sizes, 32, Run(None, seed=3))
    orders = [sampler.order(epoch) for epoch in (0, 1)]
    assert all(torch.equal(order.sort().values, torch.arange(5003)) for order in orders)
    assert not torch.equal(*orders) and torch.equal(sampler.order(0), orders[0])

    def padded(order):
        return sum(int(sizes[part].max()) * len(part) for part in order.split(32)) / int(sizes.sum())

    assert padded(orders[0]) < 1.03 < 1.8 < padded(torch.randperm(5003, generator=torch.Generator().manual_seed(0)))
    small = [sizes[part].float().mean() for part in orders[0].split(32)]
    assert abs(np.corrcoef(np.arange(len(small)), small)[0, 1]) < 0.2  # short and long batches in turn


@pytest.mark.parametrize("model", ["embedding_bag", "bilstm", "text_transformer"])
def test_padding_changes_no_answer(tmp_path, model):
    bundle = text_bundle(model).ready(Run(tmp_path))
    predict = bundle.predictor()
    requests = [bundle.task.read({"text": text}) for text in TEXTS[:6]]
    together, alone = predict(requests), [predict([request])[0] for request in requests]
    shares = lambda answers: [list(answer["label"]["probabilities"].values()) for answer in answers]  # noqa: E731
    assert np.allclose(shares(together), shares(alone), atol=1e-6)


def test_a_bidirectional_layer_equals_the_packed_one_of_torch():
    from luodi.models.layers.recurrent import Recurrent

    torch.manual_seed(0)
    ours, theirs = Recurrent(5, 7, 1), torch.nn.LSTM(5, 7, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for name, tensor in theirs.named_parameters():
            side = ours.back[0] if name.endswith("_reverse") else ours.ahead[0]
            tensor.copy_(dict(side.named_parameters())[name.removesuffix("_reverse")])
    states, lengths = torch.randn(4, 9, 5), torch.tensor([9, 4, 1, 6])
    mask = (torch.arange(9) < lengths[:, None]).long()
    packed = torch.nn.utils.rnn.pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
    wanted, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    assert torch.allclose(ours(states, mask) * mask.unsqueeze(-1), wanted, atol=1e-6)


def test_a_killed_training_of_texts_goes_on_bit_for_bit(tmp_path):
    from luodi.core.apply import apply

    step = resolve("steps", {"train": {"epochs": 3, "batch_size": 5}})
    whole = apply(step, text_bundle("bilstm"), Run(tmp_path / "a", threads=1))

    class Stop(Exception):
        pass

    def stop(event, facts):
        if event == "epoch" and facts["epoch"] == 2:
            raise Stop

    (tmp_path / "b").mkdir()
    now = resolve("steps", {"train": {"epochs": 3, "batch_size": 5, "checkpoint_seconds": 1e-6}})
    with pytest.raises(Stop):
        apply(now, text_bundle("bilstm"), Run(tmp_path / "b", threads=1, log=stop))
    again = apply(now, text_bundle("bilstm"), Run(tmp_path / "b", threads=1))
    assert all(map(torch.equal, again.model.state_dict().values(), whole.model.state_dict().values()))
