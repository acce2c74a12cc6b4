"""A recurrent language model: one state a text, carried on, in training, in flight, and in exported forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_data import bundle_of
from test_language import PROMPTS, asked, language, language_bundle, texts

from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.predictor import Predictor, TorchForward, walked
from luodi.core.run import Run

CELLS = pytest.mark.parametrize("cell", ["lstm", "gru"])


def model(cell):
    return {"rnn": {"cell": cell, "layers": 2, "width": 24, "hidden": 32, "dropout": 0.0}}


@pytest.fixture(scope="module", params=["lstm", "gru"])
def trained(request, tmp_path_factory) -> Bundle:
    step = resolve("steps", {"train": {"epochs": 60, "batch_size": 8, "learning_rate": 0.01}})
    bundle = language_bundle(model(request.param), length=48)
    return apply(step, bundle, Run(tmp_path_factory.mktemp("rnn"), threads=1))


def arrays(lengths, size, seed=0):
    ids = np.random.default_rng(seed).integers(1, size, (len(lengths), max(lengths)))
    mask = (np.arange(max(lengths)) < np.asarray(lengths)[:, None]).astype(np.int64)
    return {"text": ids * mask, "text_mask": mask}


@CELLS
def test_it_computes_the_cells_formulas(cell):
    """One layer by hand: Graves's LSTM, and the GRU of arXiv 1406.1078 as torch documents it."""
    bundle = bundle_of(language(), {"rnn": {**model(cell)["rnn"], "layers": 1}}, language_bundle().data["train"])
    made = bundle.ready(Run(None)).model.double()
    layer, ids = made.layers[0], torch.tensor([[3, 1, 2, 1]])
    x = made.tokens(ids)[0].detach().numpy()
    w, v, b, c = (getattr(layer, name).detach().numpy() for name in
                  ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"))  # fmt: skip
    h, memory = np.zeros(32), np.zeros(32)

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    for one in x:
        mine, past = np.split(w @ one + b, 4 if cell == "lstm" else 3), np.split(v @ h + c, 4 if cell == "lstm" else 3)
        if cell == "lstm":
            i, f, g, o = (a + z for a, z in zip(mine, past, strict=True))
            memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(memory)
        else:
            reset, update = sigmoid(mine[0] + past[0]), sigmoid(mine[1] + past[1])
            h = (1 - update) * np.tanh(mine[2] + reset * past[2]) + update * h
    said = made.eval()(text=ids)["text"][0, -1].detach().numpy()
    np.testing.assert_allclose(said, made.heads.weight.detach().numpy() @ h + made.heads.bias.detach().numpy())


@CELLS
def test_a_text_in_two_parts_is_the_text_in_one(cell):
    bundle = language_bundle(model(cell)).ready(Run(None))
    forward, size = TorchForward(bundle.model.eval()), bundle.task.text.cutter.size
    blank = np.zeros((3, *bundle.model.shape), np.float32)
    first, second = arrays([5, 2, 7], size), arrays([4, 6, 1], size, 1)
    half = forward({**first, "state": blank})
    rest = forward({**second, "state": half["carried"]})
    for row, (one, two) in enumerate([(5, 4), (2, 6), (7, 1)]):
        ids = np.concatenate([first["text"][row, :one], second["text"][row, :two]])[None]
        whole = forward({"text": ids, "text_mask": np.ones_like(ids), "state": blank[:1]})
        np.testing.assert_allclose(rest["text"][row, :two], whole["text"][0, one:], atol=1e-5)
        np.testing.assert_allclose(rest["carried"][row], whole["carried"][0], atol=1e-5)
    step = walked(forward, bundle.signature())
    said = step(first)
    for row, one in enumerate((5, 2, 7)):
        np.testing.assert_allclose(said["text"][row, :one], half["text"][row, :one], atol=1e-5)
    np.testing.assert_allclose(said["carried"], half["carried"], atol=1e-5)


def test_it_writes_what_it_learned_alone_batched_and_without_its_state(trained):
    requests = asked(trained, max_tokens=14)
    together = trained.predictor()(requests)
    assert together == [trained.predictor()([request])[0] for request in requests]
    assert together == Predictor(trained.task, TorchForward(trained.model))(requests)
    assert texts(together)[PROMPTS.index("床前")].startswith("明月光")


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_an_exported_form_takes_a_token_a_call_and_writes_the_same_text(trained, tmp_path, to):
    after = apply(resolve("steps", {"export": {"to": to}}), trained.fork(), Run(tmp_path))
    form = after.forms[to]
    assert form.signature.state == {"state": "carried"} and form.signature.inputs["text"].shape == (1,)
    assert form.drift < 1e-4
    opened = Bundle.load(after.save(tmp_path / "bundle"), form=to)
    assert opened.model is None
    requests = asked(trained)
    assert opened.predictor(to)(requests) == trained.predictor()(requests)


def test_int8_forms_write_too(trained, tmp_path):
    quantized = apply(resolve("steps", {"quantize": {"weights": "int8"}}), trained.fork(), Run(tmp_path))
    after = apply(resolve("steps", {"export": {"to": "onnx"}}), quantized, Run(tmp_path))
    answers = Bundle.load(after.save(tmp_path / "bundle"), form="onnx").predictor("onnx")(asked(trained))
    assert texts(answers)[PROMPTS.index("床前")].startswith("明月光")
