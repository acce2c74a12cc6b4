"""Weights of language networks in a new task: tokens, config and tensors of a folder; what learns; what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_data import bundle_of, sha
from texts_elsewhere import LINES, MIXED, change, text_folder

from luodi.core import check
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError, Refused
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.source import rows_of
from luodi.core.thing import make
from luodi.data.samples.networks import NETWORKS, kept_folder

LABELS = ["good" if place % 2 else "bad" for place in range(len(LINES))]
READ = {"supervised": {"inputs": {"text": {"text": {"tokens": "pretrained", "length": 32}}},
                       "targets": {"label": "category"}}}  # fmt: skip
WRITE = {"language": {"inputs": {"text": {"text": {"tokens": "pretrained", "length": 64}}}}}
QUICK = {"epochs": 1, "batch_size": 10, "learning_rate": 0.01}
LANGUAGES = ("gpt2", "llama", "gemma", "qwen", "mistral")


def rows() -> Rows:
    return rows_of({"text": list(LINES), "label": LABELS})


def after(bundle: Bundle, folder: Path, *steps: Any, said: list[str] | None = None) -> Bundle:
    for number, step in enumerate(steps, 1):
        log = (lambda event, facts: said.append(str(facts.get("text", "")))) if said is not None else None
        run = Run(folder / str(number), seed=1, scope=(str(number),), **({"log": log} if log else {}))
        run.out.mkdir(parents=True, exist_ok=True)
        bundle = apply(make("steps", step), bundle, run, number)
    return bundle


def fresh(task: Any, model: Any = None) -> Bundle:
    bundle = bundle_of(task, model or "constant", rows(), rows())
    return bundle if model else bundle.replace(config=None)


def step(folder: Path, **more: Any) -> dict[str, Any]:
    return {"pretrained": {"weights": str(folder), **more}}


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("texts")
    return {kind: text_folder(kind, home / kind) for kind in ("bert", "masked", "roberta", *LANGUAGES)}


# ---- encoders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "architecture"), [("bert", "BertModel"), ("masked", "BertModel"),
                                                    ("roberta", "RobertaModel"), ("gpt2", "GPT2Model")])  # fmt: skip
def test_an_encoder_reads_as_transformers_does(kind, architecture, folders, tmp_path):
    """Same ids, same states: the mean of what AutoModel gives for AutoTokenizer's arrays is what the heads get."""
    import transformers

    bundle = after(fresh(READ), tmp_path / "run", step(folders[kind]))
    assert bundle.config.architecture == architecture
    assert {"fitted", "model", "float"} <= bundle.facts
    assert bundle.notes["fresh"] == ["heads.layers.0.weight", "heads.layers.0.bias"]
    opened = Bundle.load(bundle.save(tmp_path / "saved"))
    words = transformers.AutoTokenizer.from_pretrained(folders[kind])
    words.pad_token = words.pad_token or words.eos_token
    network = transformers.AutoModel.from_pretrained(folders[kind]).eval()
    texts = [text for text in (*LINES[:6], *MIXED) if text or kind != "gpt2"]
    theirs = words(texts, padding=True, truncation=True, max_length=32, return_tensors="pt", split_special_tokens=True)
    ours = opened.task.encode([{"text": text} for text in texts])
    np.testing.assert_array_equal(ours["text"], theirs["input_ids"])
    np.testing.assert_array_equal(ours["text_mask"], theirs["attention_mask"])
    with torch.no_grad():
        states = network(input_ids=theirs["input_ids"], attention_mask=theirs["attention_mask"]).last_hidden_state
        mask = theirs["attention_mask"].float()[..., None]
        wanted = opened.model.heads.layers[0]((states * mask).sum(1) / mask.sum(1))
        found = opened.model.eval()(**{name: torch.as_tensor(array) for name, array in ours.items()})["label"]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_what_the_recipe_says_of_its_model_stays(folders, tmp_path):
    said = {"pretrained_text": {"pooling": "first", "dropout": 0.0}}
    bundle = after(fresh(READ, said), tmp_path, step(folders["bert"]))
    assert (bundle.config.pooling, bundle.config.dropout) == ("first", 0.0)
    assert bundle.config.architecture == "BertModel" and bundle.model.dropout.p == 0.0


def test_it_trains_frozen_by_layer_and_with_adapters(folders, tmp_path):
    bundle = after(fresh(READ), tmp_path / "a", step(folders["bert"]))
    before = {name: tensor.clone() for name, tensor in bundle.model.state_dict().items()}

    def moved(done: Bundle) -> set[str]:
        return {name for name, tensor in done.model.state_dict().items() if not torch.equal(tensor, before[name])}

    head = after(bundle.fork(), tmp_path / "b", {"train": {**QUICK, "learn": "head"}})
    assert moved(head) == {"heads.layers.0.weight", "heads.layers.0.bias"}
    rates = {"network.embeddings*": 0, "network.encoder.layer.0": 0}
    frozen = after(bundle.fork(), tmp_path / "c", {"train": {**QUICK, "learn": {"named": {"rate": rates}}}})
    assert {name.split(".")[0] + "." + ".".join(name.split(".")[1:4]) for name in moved(frozen)} == {
        "network.encoder.layer.1", "heads.layers.0.weight", "heads.layers.0.bias"}  # fmt: skip
    tuned = after(bundle.fork(), tmp_path / "d", {"lora": {"rank": 2, "layers": ["*query", "*value"]}},
                  {"train": QUICK}, "merge")  # fmt: skip
    assert {name for name in moved(tuned) if "encoder" in name} == {
        f"network.encoder.layer.{layer}.attention.self.{part}.weight" for layer in (0, 1) for part in ("query", "value")
    }


@pytest.mark.parametrize("model", ["embedding_bag", "bilstm"])
def test_a_network_lends_its_table_of_tokens(model, folders, tmp_path):
    """Its rows as they are, as wide as they are; all else starts anew, and a frozen table stays."""
    import transformers

    bundle = after(fresh(READ, model), tmp_path / "a", step(folders["bert"]))
    theirs = transformers.AutoModel.from_pretrained(folders["bert"]).get_input_embeddings().weight.detach()
    assert bundle.config.width == theirs.shape[1] == 32
    table = bundle.model.tables[0].weight
    assert torch.equal(table, theirs[: len(table)]) and len(table) == bundle.task.inputs["text"].cutter.size
    assert "tables.0.weight" not in bundle.notes["fresh"] and bundle.notes["taken"] == 1
    held = table.detach().clone()
    learn = {"named": {"rate": {"tables*": 0}}}
    done = after(bundle, tmp_path / "b", {"train": {**QUICK, "learn": learn}})
    assert torch.equal(done.model.tables[0].weight, held)
    opened = Bundle.load(done.save(tmp_path / "saved"))
    assert sha(opened) == sha(done)
    with pytest.raises(LuodiError, match="are 32 numbers wide, not 40"):
        after(fresh(READ, {model: {"width": 40}}), tmp_path / "c", step(folders["bert"]))


def chinese_folder(path: Path) -> tuple[Path, Any]:
    """As bert-base-chinese is published: a word list alone, a masked language model, norms named gamma and beta."""
    import transformers
    from safetensors.torch import load_file, save_file
    from texts_elsewhere import SMALL, strong

    path.mkdir(parents=True)
    characters = sorted({character for line in LINES for character in line if "\u4e00" <= character <= "\u9fff"})
    words = ["[PAD]", *(f"[unused{place}]" for place in range(1, 5)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    (path / "vocab.txt").write_text("\n".join([*words, "film", "##s", "a"]) + "\n", encoding="utf-8")
    settings = {"do_lower_case": False, "model_max_length": 64}
    (path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    config = transformers.BertConfig(vocab_size=len(words) + 3, max_position_embeddings=64, pad_token_id=0, **SMALL)
    network = transformers.BertForMaskedLM(config).eval()
    strong(network)
    network.save_pretrained(path)
    stored = load_file(path / "model.safetensors")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, tensor in stored.items():
        for now, then in old.items():
            name = name.replace(now, then)
        renamed[name] = tensor
    pooler = {"bert.pooler.dense.weight": torch.zeros(32, 32), "bert.pooler.dense.bias": torch.zeros(32)}
    save_file({**renamed, **pooler}, path / "model.safetensors", {"format": "pt"})
    change(path, "config.json", directionality="bidi", pooler_fc_size=768, pooler_type="first_token_transform")
    return path, network


def test_a_folder_as_that_of_bert_base_chinese(tmp_path, monkeypatch):
    """Its old name leads to its owner on the hub; what comes from there reads Chinese character by character."""
    import huggingface_hub

    path, network = chinese_folder(tmp_path / "chinese")
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **rest: asked.append(name) or str(path))
    bundle = after(fresh(READ), tmp_path / "a", {"pretrained": {"weights": "bert-base-chinese"}})
    assert asked == ["google-bert/bert-base-chinese"]
    arrays = bundle.task.encode([{"text": "这部电影 films"}, {"text": "龘"}])
    listed = (path / "vocab.txt").read_text(encoding="utf-8").split("\n")
    assert [listed[one] for one in arrays["text"][0]] == ["[CLS]", *"这部电影", "film", "##s", "[SEP]"]
    assert [listed[one] for one in arrays["text"][1]][:3] == ["[CLS]", "[UNK]", "[SEP]"]
    with torch.no_grad():
        inputs = {name: torch.as_tensor(array) for name, array in arrays.items()}
        states = network.bert(input_ids=inputs["text"], attention_mask=inputs["text_mask"]).last_hidden_state
        share = inputs["text_mask"].float()[..., None]
        wanted = bundle.model.heads.layers[0]((states * share).sum(1) / share.sum(1))
        found = bundle.model.eval()(**inputs)["label"]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


# ---- language models ------------------------------------------------------------------------------------------------


def greedy(network: Any, ids: list[int], count: int, cutter: Any) -> list[int]:
    """Without a cache, one forward a token; rows of a padded vocabulary are no tokens."""
    found = list(ids)
    with torch.no_grad():
        for _ in range(count):
            token = int(network(torch.tensor([found])).logits[0, -1, : cutter.size].argmax())
            found.append(token)
            if token in cutter.ends:
                break
    return found[len(ids) :]


@pytest.mark.parametrize("kind", LANGUAGES)
def test_a_language_model_writes_as_transformers_does(kind, folders, tmp_path):
    """Logits to 1e-5; texts of several lengths together, with the memory, beyond the window of sliding layers."""
    import transformers

    bundle = after(fresh(WRITE), tmp_path / "run", step(folders[kind]))
    assert bundle.notes["model"] == ("gpt" if kind in ("gpt2", "llama") else "pretrained_language")
    assert bundle.notes["fresh"] == [] and bundle.notes["share"] == 1.0
    opened = Bundle.load(bundle.save(tmp_path / "saved"))
    network = transformers.AutoModelForCausalLM.from_pretrained(folders[kind]).eval()
    words = transformers.AutoTokenizer.from_pretrained(folders[kind])
    cutter = opened.task.text.cutter
    assert cutter.size == len(words)
    ids = words(LINES[0] + LINES[2])["input_ids"]
    ours = opened.predictor().forward({"text": np.array([ids]), "text_mask": np.ones((1, len(ids)), np.int64)})
    with torch.no_grad():
        wanted = network(torch.tensor([ids])).logits[..., : cutter.size].numpy()
    np.testing.assert_allclose(ours["text"], wanted, atol=1e-5, rtol=1e-5)
    prompts = ["a", LINES[1], LINES[7] + LINES[8]]
    requests = [opened.task.read({"text": prompt, "max_tokens": 12}) for prompt in prompts]
    for prompt, request, written in zip(prompts, requests, together(opened, requests), strict=True):
        assert request["prompt"] == words(prompt)["input_ids"]
        assert written == greedy(network, request["prompt"], 12, cutter)


def together(bundle: Bundle, requests: list[Any]) -> list[list[int]]:
    """The tokens that one flow writes for all of them."""
    flow = bundle.predictor().open()
    flow.add(requests)
    writings = list(flow.waiting.values())
    while not all(writing.finish for writing in writings):
        flow.step()
    return [writing.ids for writing in writings]


@pytest.mark.parametrize("kind", ["gpt2", "gemma"])
def test_adapters_of_a_language_model(kind, folders, tmp_path):
    """`merge` keeps the answers, or it would be refused; the tables stay as they were."""
    bundle = after(fresh(WRITE), tmp_path / "a", step(folders[kind]))
    before = {name: tensor.clone() for name, tensor in bundle.model.state_dict().items()}
    layers = ["*attention*"] if kind == "gpt2" else ["*_proj"]
    done = after(bundle, tmp_path / "b", {"lora": {"rank": 2, "layers": layers}}, {"train": QUICK}, "merge")
    moved = {name for name, tensor in done.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and not any("tokens" in name or "embed" in name for name in moved)
    opened = Bundle.load(done.save(tmp_path / "saved"))
    assert sha(opened) == sha(done)


@pytest.mark.parametrize("kind", LANGUAGES)
def test_of_each_row_the_logits_of_one_place(kind, folders, tmp_path):
    model = after(fresh(WRITE), tmp_path, step(folders[kind])).model.eval()
    ids, last = torch.randint(3, 20, (3, 5), generator=torch.Generator().manual_seed(0)), torch.tensor([4, 1, 4])
    shape = [1 if isinstance(side, str) else side for side in model.shape]
    nothing = {"past": torch.zeros(3, *shape), "start": torch.zeros(3, dtype=torch.int64)}
    with torch.no_grad():
        wanted = model(text=ids)["text"][torch.arange(3), last]
        for more in ({}, {**nothing, "past": nothing["past"][:, :, :, :, :0]}, nothing):
            torch.testing.assert_close(model(text=ids, last=last, **more)["text"][:, 0], wanted, atol=1e-5, rtol=1e-5)


def test_a_padded_vocabulary_and_marks_without_a_row(folders, tmp_path):
    """Gemma's folder has 7 rows more than tokens; another has a mark more than rows."""
    size = len(json.loads((folders["qwen"] / "tokenizer.json").read_text())["model"]["vocab"])
    more = shutil.copytree(folders["qwen"], tmp_path / "more")
    held = json.loads((more / "tokenizer.json").read_text())
    mark = {"id": size, "content": "<picture>", "special": True, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False}  # fmt: skip
    change(more, "tokenizer.json", added_tokens=[*held["added_tokens"], mark])
    for folder in (folders["gemma"], more):
        bundle = after(fresh(WRITE), tmp_path / folder.name, step(folder))
        assert bundle.task.outputs_specs()["text"].size == bundle.task.text.cutter.size == size


# ---- a recipe -------------------------------------------------------------------------------------------------------


def test_a_recipe_without_a_model_is_planned_and_run(folders, tmp_path, quick, capsys):
    from conftest import write_recipe

    from luodi.cli import main

    lines = ["text,label", *(f'"{text}",{label}' for text, label in zip(LINES, LABELS, strict=True))]
    (tmp_path / "rows.csv").write_text("\n".join(lines * 1) + "\n", encoding="utf-8")
    recipe = {
        "name": "texts", "task": READ, "data": {"table": {"path": str(tmp_path / "rows.csv")}},
        "steps": [{"split": {"validation": 0.2, "test": 0.3}}, step(folders["bert"]), {"train": QUICK}],
        "measure": {"seconds": 1, "calls": 20, "resamples": 100},
    }  # fmt: skip
    path = write_recipe(tmp_path / "texts.yaml", recipe)
    main_returns(main, ["plan", str(path), "--json", "--out", str(tmp_path / "runs")])
    facts = json.loads(capsys.readouterr().out)
    assert facts["problems"] == [] and facts["model"]["parameters"] > 20_000
    assert facts["steps"][2]["forecast"]["memory_mb"] > 0
    main_returns(main, ["run", str(path), "--out", str(tmp_path / "runs")])
    bundle = Bundle.load(tmp_path / "runs" / "texts" / "bundle")
    assert bundle.config.architecture == "BertModel"
    main_returns(main, ["run", str(path), "--out", str(tmp_path / "runs")])
    events = [json.loads(line) for line in (tmp_path / "runs" / "texts" / "events.jsonl").read_text().splitlines()]
    assert [one for one in events if one["event"] == "end"][-1]["kept"] == 3, "all steps are kept"


def main_returns(main: Any, words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code in (0, None)


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused(folders, tmp_path):
    plain = {"supervised": {"inputs": {"text": "text"}, "targets": {"label": "category"}}}
    with pytest.raises(Refused, match="no input is a text with tokens: pretrained"):
        after(fresh(plain), tmp_path / "a", step(folders["bert"]))
    with pytest.raises(Refused, match="goes into the model pretrained_text, not into text_transformer"):
        after(fresh(READ, "text_transformer"), tmp_path / "b", step(folders["bert"]))
    with pytest.raises(LuodiError, match="which is no causal language model"):
        after(fresh(WRITE), tmp_path / "c", step(folders["bert"]))
    long = {"supervised": {"inputs": {"text": {"text": {"tokens": "pretrained", "length": 65}}},
                           "targets": {"label": "category"}}}  # fmt: skip
    for kind in ("bert", "roberta"):
        with pytest.raises(LuodiError, match="reads texts of at most 64 tokens"):
            after(fresh(long), tmp_path / f"d{kind}", step(folders[kind]))
    found = check.build_problem(fresh(long).replace(data=data()), (make("steps", step(folders["bert"])),))
    assert found is not None and "at most 64 tokens" in found, "said before any work"
    with pytest.raises(LuodiError, match="'minilm' is no bundle and no folder; did you mean 'minilm_l6'"):
        after(fresh(READ), tmp_path / "e", {"pretrained": {"weights": "minilm"}})


def data() -> Any:
    from luodi.core.source import Data

    return Data({"all": rows()})


def test_only_plain_safetensors_are_read(folders, tmp_path):
    pickled = shutil.copytree(folders["bert"], tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(LuodiError, match="that is pickle, which can run code"):
        after(fresh(READ), tmp_path / "a", step(pickled))
    adapter = shutil.copytree(folders["bert"], tmp_path / "adapter")
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(LuodiError, match="holds an adapter"):
        after(fresh(READ), tmp_path / "b", step(adapter))
    lacks = shutil.copytree(folders["bert"], tmp_path / "lacks")
    change(lacks, "config.json", num_hidden_layers=3)
    with pytest.raises(LuodiError, match=r"encoder.layer.2.attention\S* is missing"):
        after(fresh(READ), tmp_path / "c", step(lacks))


def test_another_folder_at_the_same_path_is_seen(folders, tmp_path):
    path = shutil.copytree(folders["bert"], tmp_path / "mine")
    said = make("steps", step(path))
    assert said.digest is not None, "written down when the recipe is read"
    change(path, "tokenizer_config.json", model_max_length=63)
    with pytest.raises(LuodiError, match="has other files now"):
        apply(said, fresh(READ), Run(tmp_path))


def test_terms_are_told_before_anything_is_fetched(tmp_path):
    made = make("steps", {"pretrained": {"weights": "gemma3_270m", "accept": "gemma"}})
    cautions = made.cautions("cpu")
    assert NETWORKS["gemma3_270m"].terms in cautions and "238" in cautions[0], cautions
    assert made.foresee(make("tasks", WRITE), None, tmp_path) is None, "not known before it is fetched"
    assert not list(tmp_path.iterdir())


def test_a_bundle_gives_its_tokens_on(folders, tmp_path):
    """From folder to bundle to another task's bundle: the tokenizer goes along with the weights."""
    first = after(fresh(READ), tmp_path / "a", step(folders["bert"]), {"train": QUICK})
    path = first.save(tmp_path / "first")
    second = after(fresh(READ), tmp_path / "b", step(path))
    assert second.task.inputs["text"].learned == first.task.inputs["text"].learned
    assert second.config == first.config and "exposed" in second.facts
    state, given = second.model.state_dict(), first.model.state_dict()
    assert [name for name in state if not torch.equal(state[name], given[name])] == second.notes["fresh"]


def test_the_tokenizer_takes_part_in_what_a_training_is(folders, tmp_path):
    from luodi.train.loop.identity import identity

    bundle = after(fresh(READ), tmp_path / "a", step(folders["bert"]))
    train, run = make("steps", {"train": QUICK}), Run(tmp_path)
    field = bundle.task.inputs["text"]
    other = field.given(field.learned.content(), 1, (), {})
    task = bundle.task.model_copy(update={"inputs": {"text": other}})
    assert identity(train, bundle, run)["task"] != identity(train, bundle.replace(task=task), run)["task"]


@pytest.mark.skipif(kept_folder("minilm_l6", Path.home() / ".cache" / "luodi") is None, reason="it is not in the cache")
def test_the_published_encoder(tmp_path):
    bundle = after(fresh(READ), tmp_path, {"pretrained": {"weights": "minilm_l6"}})
    assert bundle.notes["share"] > 0.99
