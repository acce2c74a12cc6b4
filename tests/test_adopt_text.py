"""Text classifiers and language models of transformers as bundles: equal tokens, equal logits; what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import luodi
from texts_elsewhere import LINES, MIXED, change, text_folder

from luodi.adopt.transformers_folder import adopt
from luodi.core import parity
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError, ParityError

TEXTS = [*LINES, *MIXED, "long " * 300, "很长" * 300]
KINDS = ("classifier", "decider", "gpt2", "llama", "gemma")


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("folders")
    return {kind: text_folder(kind, home / kind) for kind in KINDS}


@pytest.fixture(scope="session")
def adopted(folders, tmp_path_factory) -> dict[str, tuple[dict[str, Any], Path]]:
    home = tmp_path_factory.mktemp("adopted")
    return {kind: (adopt(str(folder), home / kind), home / kind) for kind, folder in folders.items()}


def words_of(folder: Path) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder)


def test_a_classifier_answers_as_the_pipeline_of_transformers(folders, adopted):
    import transformers

    report, path = adopted["classifier"]
    pipeline = transformers.pipeline("text-classification", str(folders["classifier"]), top_k=None)
    predict = Bundle.load(path).predictor()
    texts = [text for text in TEXTS if "[SEP]" not in text]
    theirs = pipeline(texts, truncation=True, max_length=64)
    answers = predict([predict.task.read({"text": text}) for text in texts])
    for answer, wanted in zip(answers, theirs, strict=True):
        assert answer["label"]["value"] == wanted[0]["label"]
        shares = {one["label"]: one["score"] for one in wanted}
        assert answer["label"]["probabilities"] == pytest.approx(shares, abs=1e-5)
    assert {answer["label"]["value"] for answer in answers} >= {"good", "bad"}, "the texts tell something"
    assert report["drift"] <= 1e-5 and report["arrays_difference"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_transformers(kind, folders, adopted):
    task, words = Bundle.load(adopted[kind][1]).task, words_of(folders[kind])
    for text in TEXTS:
        array = task.encode([task.read({"text": text})])["text"][0].tolist()
        length, language = task.inputs["text"].length, hasattr(task, "sampling")
        cut = {} if language else {"truncation": True, "max_length": length}
        wanted = words(text, split_special_tokens=True, **cut)["input_ids"]
        if language and len(wanted) > length - 1:  # of a prompt that is too long, the end is kept
            before = len(task.text.cutter.frame[0])
            wanted = [*wanted[:before], *wanted[len(wanted) - (length - 1 - before) :]]
        assert array == (wanted or [words.eos_token_id]), text  # an empty text is its end


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma"])
def test_a_language_model_gives_its_logits(kind, folders, adopted):
    import transformers

    bundle = Bundle.load(adopted[kind][1])
    network = transformers.AutoModelForCausalLM.from_pretrained(folders[kind]).eval()
    ids = words_of(folders[kind])(LINES[3] + LINES[5])["input_ids"]
    found = bundle.predictor().forward({"text": np.array([ids]), "text_mask": np.ones((1, len(ids)), np.int64)})
    with torch.no_grad():
        wanted = network(torch.tensor([ids])).logits.numpy()[..., : bundle.task.text.cutter.size]
    np.testing.assert_allclose(found["text"], wanted, atol=1e-5, rtol=1e-5)
    assert bundle.adopted["architecture"] == type(network).__name__ and bundle.adopted["parity"]["drift"] <= 1e-5


def test_a_bundle_needs_nothing_of_the_folder(folders, tmp_path):
    """Imported by the command, the folder then gone: it opens and answers."""
    source = shutil.copytree(folders["classifier"], tmp_path / "source")
    done = luodi("import", str(source), "--out", str(tmp_path / "bundle"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["inputs"]["text"] == "tokens ('text_length',)"
    shutil.rmtree(source)
    predict = Bundle.load(tmp_path / "bundle").predictor()
    assert set(predict([{"text": "好"}])[0]["label"]["probabilities"]) == {"good", "bad", "so so"}


def test_the_template_of_a_dialogue_is_kept_in_the_lineage(folders, tmp_path):
    source = shutil.copytree(folders["llama"], tmp_path / "source")
    template = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}"
    (source / "chat_template.jinja").write_text(template, encoding="utf-8")
    adopt(str(source), tmp_path / "bundle")
    assert Bundle.load(tmp_path / "bundle").adopted["chat_template"] == template


def test_what_differs_is_refused(folders, tmp_path, monkeypatch):
    """Planted mistakes: other tokens, other weights. Nothing is saved."""
    from luodi.adopt import transformers_text

    real = transformers_text.tokens_of

    def other(folder: Any) -> Any:
        held = json.loads(real(folder).content)
        held["normalizer"]["lowercase"] = False
        return type(real(folder))(json.dumps(held).encode(), 0, (), {}, 64)

    monkeypatch.setattr(transformers_text, "tokens_of", other)
    with pytest.raises(ParityError, match="preprocessing"):
        adopt(str(folders["classifier"]), tmp_path / "a")
    monkeypatch.undo()
    real_tensors = transformers_text.tensors_of

    def wrong(*given: Any) -> Any:
        return {name: tensor * (1.01 if name == "norm.weight" else 1) for name, tensor in real_tensors(*given).items()}

    monkeypatch.setattr(transformers_text, "tensors_of", wrong)
    with pytest.raises(ParityError, match="drifts by"):
        adopt(str(folders["gpt2"]), tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_imported_says_why(folders, tmp_path):
    bare = shutil.copytree(folders["classifier"], tmp_path / "bare")
    change(bare, "config.json", id2label=None)
    with pytest.raises(LuodiError, match="has no id2label"):
        adopt(str(bare), tmp_path / "out")
    several = shutil.copytree(folders["classifier"], tmp_path / "several")
    change(several, "config.json", problem_type="multi_label_classification")
    with pytest.raises(LuodiError, match="its problem_type is multi_label_classification"):
        adopt(str(several), tmp_path / "out")
    wordless = shutil.copytree(folders["gpt2"], tmp_path / "wordless")
    for file in wordless.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(LuodiError, match="has no tokenizer"):
        adopt(str(wordless), tmp_path / "out")
    with pytest.raises(LuodiError, match="does not classify images or texts nor write text"):
        adopt(str(text_folder("masked", tmp_path / "masked")), tmp_path / "out")


def test_golden_requests_are_replayed(adopted):
    for _, path in adopted.values():
        parity.check(Bundle.load(path, check=False), ("torch",), "here")
