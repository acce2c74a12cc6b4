"""Bundles as Hugging Face folders: transformers opens them by its Auto classes and gives the same text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_data import bundle_of, table_bundle
from test_pretrained_text import QUICK, READ, WRITE, after, fresh, step
from texts_elsewhere import LINES, MIXED, text_folder

from luodi.adopt.transformers_folder import adopt
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError, Refused
from luodi.core.run import Run
from luodi.core.source import rows_of
from luodi.core.thing import make

EXPORT = {"export": {"to": "hugging_face"}}
GPT = {"gpt": {"layers": 2, "width": 32, "heads": 4, "context": 64}}
LLAMA = {"gpt": {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "context": 64, "positions": "rotary",
                 "norm": "rms", "gated": True, "tied": False}}  # fmt: skip
CUTS = {
    "character": {"tokens": "character", "length": 64, "at_least": 1},
    "marked": {"tokens": "bpe", "length": 64, "marks": True, "vocabulary": 330, "case": "keep"},
    "bpe": {"tokens": "bpe", "length": 64, "vocabulary": 330},
}


def own(cut: str, model: Any, folder: Path) -> Bundle:
    """A language model from scratch, trained for a moment, and exported."""
    task = {"language": {"inputs": {"text": {"text": CUTS[cut]}}}}
    rows = rows_of({"text": [*LINES] * 2})
    return after(bundle_of(task, model, rows, rows), folder, {"train": QUICK}, EXPORT)


def folder_of(bundle: Bundle) -> Path:
    return bundle.forms["hugging_face"].folder


def opened(folder: Path) -> tuple[Any, Any]:
    import transformers

    network = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    return network, transformers.AutoTokenizer.from_pretrained(folder)


def same_text(bundle: Bundle, prompts: tuple[str, ...] = (LINES[0][:9], LINES[2][:4], "a")) -> None:
    """`generate` with the tokenizer of the folder, and the bundle's torch model, one prompt at a time and together."""
    network, words = opened(folder_of(bundle))
    predict = bundle.predictor("torch")
    answers = predict([bundle.task.read({"text": prompt, "max_tokens": 10}) for prompt in prompts])
    assert bundle.predictor()([bundle.task.read({"text": prompt, "max_tokens": 10}) for prompt in prompts]) == answers
    for prompt, answer in zip(prompts, answers, strict=True):
        request = bundle.task.read({"text": prompt})
        given = words(prompt, return_tensors="pt")
        assert given["input_ids"][0].tolist() == list(request["prompt"])
        with torch.no_grad():
            whole = network.generate(**given, max_new_tokens=10, do_sample=False)[0].tolist()
        new = whole[len(request["prompt"]) :]
        assert len(new) == answer["text"]["tokens"]
        text = words.decode(whole, skip_special_tokens=True)
        before = words.decode(request["prompt"], skip_special_tokens=True)
        assert text[len(before) :].rstrip("\ufffd") == answer["text"]["value"].rstrip("\ufffd")


@pytest.mark.parametrize(("cut", "model"), [("character", GPT), ("marked", LLAMA), ("bpe", GPT)])
def test_a_gpt_from_scratch_opens_in_transformers(cut, model, tmp_path):
    bundle = own(cut, model, tmp_path)
    form = bundle.forms["hugging_face"]
    assert form.drift <= 1e-5 and form.arithmetic == "float32"
    _, words = opened(form.folder)
    cutter = bundle.task.text.cutter
    for text in (*LINES, *MIXED):
        assert words(text, add_special_tokens=False)["input_ids"] == cutter.ids([bundle.task.text.settled(text)])[0]
    same_text(bundle)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma", "mistral"])
def test_a_pretrained_language_model_goes_there_and_back(kind, tmp_path):
    """In from a folder, trained, out as a folder, in again by `import`: the same logits."""
    source = text_folder(kind, tmp_path / "source")
    bundle = after(fresh(WRITE), tmp_path / "run", step(source), {"train": QUICK}, EXPORT)
    assert bundle.forms["hugging_face"].drift <= 1e-5
    if kind != "gemma":  # its padded vocabulary may be drawn from by `generate`
        same_text(bundle)
    adopt(str(folder_of(bundle)), tmp_path / "again")
    again = Bundle.load(tmp_path / "again")
    ids = np.array([bundle.task.read({"text": LINES[1]})["prompt"]])
    arrays = {"text": ids, "text_mask": np.ones_like(ids)}
    np.testing.assert_allclose(
        again.predictor().forward(arrays)["text"], bundle.predictor("torch").forward(arrays)["text"],
        atol=1e-5, rtol=1e-5,
    )  # fmt: skip
    saved = Bundle.load(bundle.save(tmp_path / "saved"))  # replays its golden requests through the form too
    assert saved.serving == "hugging_face"


def test_an_encoder_opens_as_one(tmp_path):
    import transformers

    source = text_folder("bert", tmp_path / "source")
    bundle = after(fresh(READ), tmp_path / "run", step(source), {"train": QUICK}, EXPORT)
    assert bundle.forms["hugging_face"].drift <= 1e-5
    network = transformers.AutoModel.from_pretrained(folder_of(bundle), add_pooling_layer=False).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder_of(bundle))
    given = words([LINES[0], LINES[2]], padding=True, return_tensors="pt")
    arrays = bundle.task.encode([{"text": LINES[0]}, {"text": LINES[2]}])
    np.testing.assert_array_equal(given["input_ids"], arrays["text"])
    with torch.no_grad():
        ours = bundle.model.network(given["input_ids"], given["attention_mask"]).last_hidden_state
        theirs = network(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state
    torch.testing.assert_close(ours, theirs)


def test_a_classifier_keeps_its_labels(tmp_path):
    import transformers

    adopt(str(text_folder("classifier", tmp_path / "source")), tmp_path / "bundle")
    bundle = apply(make("steps", EXPORT), Bundle.load(tmp_path / "bundle"), Run(tmp_path))
    pipeline = transformers.pipeline("text-classification", str(folder_of(bundle)))
    answers = bundle.predictor()([{"text": text} for text in LINES])
    assert [one["label"] for one in pipeline(list(LINES))] == [answer["label"]["value"] for answer in answers]


def test_sampling_goes_along(tmp_path):
    bundle = own("bpe", GPT, tmp_path)
    rules = bundle.task.sampling.model_copy(update={"temperature": 0.7, "top_p": 0.9, "max_tokens": 5})
    changed = bundle.replace(task=bundle.task.model_copy(update={"sampling": rules}))
    again = apply(make("steps", EXPORT), changed, Run(tmp_path / "again"))
    held = json.loads((folder_of(again) / "generation_config.json").read_text())
    assert (held["do_sample"], held["temperature"], held["top_p"], held["max_new_tokens"]) == (True, 0.7, 0.9, 5)
    assert held["eos_token_id"] == [3] and held["pad_token_id"] == 0


def source_bundle(folder: Path) -> Bundle:
    source = text_folder("gpt2", folder / "gpt2")
    return after(fresh(WRITE), folder / "first", step(source))


def test_what_has_no_counterpart_is_refused(tmp_path):
    sides = {"supervised": {"inputs": {"x0": "number"}, "targets": {"side": "category"}}}
    with pytest.raises(Refused, match="has no class for mlp"):
        after(table_bundle(sides, "mlp"), tmp_path / "a", {"train": QUICK}, EXPORT)
    for name, more, why in (("b", {"positions": "sinusoidal"}, "sinusoidal has no counterpart"),
                            ("e", {"norm": "rms"}, "norm: layer and gated: false alone"),
                            ("f", {"kv_heads": 1}, "kv_heads below heads have no counterpart")):  # fmt: skip
        with pytest.raises(Refused, match=why):
            own("bpe", {"gpt": {**GPT["gpt"], **more}}, tmp_path / name)
    with pytest.raises(Refused, match="holds floats"):
        after(source_bundle(tmp_path), tmp_path / "c", {"export": {"to": "hugging_face", "activations": "int8"}})
    source = text_folder("bert", tmp_path / "source")
    with pytest.raises(LuodiError, match="layers were replaced"):
        after(fresh(READ), tmp_path / "d", step(source), {"lora": {"rank": 2}}, EXPORT)
