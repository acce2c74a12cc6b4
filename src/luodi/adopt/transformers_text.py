"""A folder or hub name of a text classifier or a language model of transformers as a bundle."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luodi.adopt.labels import labels_of, refuse_other_problems
from luodi.adopt.proof import Original, fill_from, prove_and_save
from luodi.core import atomic
from luodi.core.bundle import Bundle
from luodi.core.catalog import name_of, require
from luodi.core.errors import LuodiError
from luodi.core.spec import Arrays
from luodi.core.task import Task
from luodi.core.thing import ModelConfig, make
from luodi.data.pretraining.filling import filled
from luodi.data.pretraining.folder import TEXTS, Folder, dtype_note, network_of, opened, plain
from luodi.data.pretraining.networks import config_of, tensors_of, whole_config
from luodi.data.pretraining.tokens import Tokens, auto_tokenizer, tokens_of

if TYPE_CHECKING:
    from luodi.core.task import Request

TEXT, LABEL = "text", "label"  # the columns of the bundle's task
LONGEST = 2048  # tokens; a model of longer texts is cut to this, since golden requests are longer still


def of_texts(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a text classifier or a language model."""
    named = (config.get("architectures") or [""])[0]
    return named in _known("MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES") | _known(
        "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
    )


def adopt(source: str, out: Path) -> dict[str, Any]:
    """Saves a bundle at `out` that cuts texts and answers as the model of this folder or hub name does.

    Code of the folder or hub is never run and pickle never read. Raises LuodiError for what is missing or not known,
    ParityError if the bundle would answer otherwise. Returns what was found.
    """
    folder = opened(source)
    kind: Any = getattr(require("transformers", "hub"), folder.architecture)
    tokens, words = tokens_of(folder), auto_tokenizer(folder)
    length = min(tokens.most or 512, LONGEST)
    side = "start" if words.truncation_side == "left" else "end"
    field: Any = make("fields", {"text": {"tokens": "pretrained", "length": length, "cut": side}})
    field = field.given(tokens.content, tokens.pad, tokens.ends, tokens.names)
    if folder.architecture in _known("MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES"):
        bundle, network, notes = _classifier(folder, kind, field, tokens)
    else:
        bundle, network, notes = _language(folder, kind, field)
    notes += dtype_note(folder.path)
    if tokens.most > length:
        notes.append(f"texts are cut to {length} tokens, the model itself takes {tokens.most}")
    original = Original(_arrays(bundle.task, words, field), _forward(network, bundle.task))
    return prove_and_save(bundle, original, out, _about(folder, tokens, type(words).__name__, notes))


def _known(mapping: str) -> set[str]:
    require("transformers", "hub")
    from transformers.models.auto import modeling_auto

    given = getattr(modeling_auto, mapping).values()
    return {name for one in given for name in ((one,) if isinstance(one, str) else one)}


def _classifier(folder: Folder, kind: Any, field: Any, tokens: Tokens) -> tuple[Bundle, Any, list[str]]:
    """The bundle, the original, notes on what was understood."""
    refuse_other_problems(folder.config, folder.source)
    labels, notes = labels_of(folder.config, folder.source)
    network, unused = network_of(kind, folder.path)
    if network.config.num_labels != len(labels):
        raise LuodiError(
            f"{folder.source}: id2label names {len(labels)} labels, the head has {network.config.num_labels}"
        )
    config = plain(whole_config(folder, kind))
    if config.get("pad_token_id") is None:  # a decoder answers at the last token that is no padding
        network.config.pad_token_id = config["pad_token_id"] = tokens.pad
    task = make("tasks", {"supervised": {
        "inputs": {TEXT: field}, "targets": {LABEL: {"category": {"values": labels}}},
    }})  # fmt: skip
    given = make("models", {"pretrained_classifier": {"architecture": kind.__name__, "config": config}})
    assert isinstance(task, Task) and isinstance(given, ModelConfig)
    model = task.build(given).eval()
    fill_from(model, network)
    return Bundle(task, given, model, facts=frozenset({"model", "float", "fitted"})), network, notes + unused


def _language(folder: Folder, kind: Any, field: Any) -> tuple[Bundle, Any, list[str]]:
    """The bundle, the original, notes on what was understood."""
    task = make("tasks", {"language": {"inputs": {TEXT: field}}})
    assert isinstance(task, Task)
    config, size = config_of(folder, None, language=True), field.cutter.size
    try:
        model = task.build(config).eval()
    except ValueError as error:
        raise LuodiError(f"{folder.source} cannot be imported: {error}") from error
    _, left = filled(model, tensors_of(folder, config, size), heads=True)
    assert not left, f"the original has no {left[:4]}"
    network, unused = network_of(kind, folder.path)
    notes = [*unused, f"{folder.architecture} is the model {name_of(type(config))}"]
    return Bundle(task, config, model, facts=frozenset({"model", "float", "fitted"})), network, notes


def _arrays(task: Task, words: Any, field: Any) -> Any:
    """What the original's own tokenizer makes of requests."""
    language, cutter = name_of(type(task)) == "language", field.cutter
    before = len(cutter.frame[0])

    def bare(text: str) -> list[int]:
        # A mark's name in a request is text, not the mark: who sends it must not end or mask anything.
        parts = [text]
        if cutter.forged.search(text):
            parts = cutter.forged.sub(lambda mark: f"{mark.group()[0]}\0{mark.group()[1:]}", text).split("\0")
        return [token for part in parts for token in words(part, add_special_tokens=False, verbose=False)["input_ids"]]

    def ids(text: str) -> list[int]:
        if language:
            room = field.length - 1 - before
            found = bare(text)
            return [*cutter.frame[0], *found[max(len(found) - room, 0) :]] or [cutter.blank]
        if not cutter.forged.search(text):
            return words(text, truncation=True, max_length=field.length)["input_ids"] or [cutter.blank]
        found, room = bare(text), field.length - before - len(cutter.frame[1])
        kept = found[:room] if field.cut == "end" else found[max(len(found) - room, 0) :]
        return [*cutter.frame[0], *kept, *cutter.frame[1]]

    def arrays(requests: Sequence[Request]) -> Arrays:
        rows = [ids(request["text"] if language else request[TEXT]) for request in requests]
        width = max(map(len, rows))
        whole = np.array([row + [cutter.pad] * (width - len(row)) for row in rows], np.int64)
        mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], np.int64)
        return {TEXT: whole, f"{TEXT}_mask": mask}

    return arrays


def _forward(network: Any, task: Task) -> Any:
    """The original's logits; of a padded vocabulary those of tokens that there are."""
    ((name, spec),) = task.outputs_specs().items()

    def forward(arrays: Arrays) -> Arrays:
        import torch

        with torch.inference_mode():
            ids, mask = (torch.as_tensor(arrays[one]) for one in (TEXT, f"{TEXT}_mask"))
            # What is padded comes last, where nothing before it looks; what stands there is no answer, and is compared.
            seen = {} if name == TEXT else {"attention_mask": mask}
            logits = network(input_ids=ids, **seen).logits
            return {name: logits[..., : spec.size].float().numpy()}

    return forward


def _about(folder: Folder, tokens: Tokens, tokenizer: str, notes: list[str]) -> dict[str, Any]:
    """The lineage: what it was, and the SHA-256 of every file that was read."""
    files = sorted({path for pattern in TEXTS for path in folder.path.glob(pattern)})
    return {
        "kind": "transformers",
        "source": folder.source if folder.revision else folder.path.resolve().name,
        "revision": folder.revision,
        "architecture": folder.architecture,
        "tokenizer": tokenizer,
        "chat_template": tokens.template,
        "files": {path.name: atomic.file_sha(path) for path in files},
        "packages": {name: importlib.metadata.version(name) for name in ("transformers", "torch", "tokenizers")},
        "notes": notes,
    }
