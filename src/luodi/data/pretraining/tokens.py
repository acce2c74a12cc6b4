"""The tokens of a model folder, put into the text fields that wait for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from luodi.core.catalog import require
from luodi.core.errors import LuodiError
from luodi.core.task import Task
from luodi.data.pretraining.folder import Folder, quiet

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
SHIFTED = ("roberta", "camembert", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "xmod", "data2vec-text",
           "mpnet", "longformer", "ibert", "esm")  # their first place is behind the padding's id  # fmt: skip
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
ENDLESS = 10**9  # a tokenizer that knows no longest text says about 1e30


@dataclass(frozen=True)
class Tokens:
    """A tokenizer.json, the ids that pad and end a text, the names of its marks, the longest text (0: not known)."""

    content: bytes
    pad: int
    ends: tuple[int, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    most: int = 0
    template: str | None = None  # how a dialogue is written as one text


def tokens_of(folder: Folder) -> Tokens:
    """The tokenizer of a folder, exactly as transformers' AutoTokenizer opens it; raises LuodiError if it cannot."""
    opened = auto_tokenizer(folder)
    inner = getattr(opened, "backend_tokenizer", None)
    if inner is None:
        raise LuodiError(f"{folder.source}: its tokenizer is a program ({type(opened).__name__}), not a tokenizer.json")
    held = json.loads(inner.to_str())
    held["truncation"] = held["padding"] = None
    size = folder.config.get("vocab_size")
    if isinstance(size, int):  # marks for pictures and the like, which the model has no row for
        held["added_tokens"] = [one for one in held.get("added_tokens", ()) if one["id"] < size]
    ends = tuple(_ends(opened, folder))
    pads = (opened.pad_token_id, folder.config.get("pad_token_id"), *ends, 0)
    pad = next(one for one in pads if isinstance(one, int) and one >= 0)
    names = {name: str(value) for name in NAMES if (value := getattr(opened, name, None))}
    template = opened.chat_template if isinstance(opened.chat_template, str) else None
    content = json.dumps(held, ensure_ascii=False).encode()
    return Tokens(content, pad, ends, names, longest(folder, opened.model_max_length), template)


def auto_tokenizer(folder: Folder) -> Any:
    """What AutoTokenizer makes of the folder; no code of it is run, nothing is fetched."""
    transformers = require("transformers", "hub")
    if not any(file for pattern in VOCABULARIES for file in folder.path.glob(pattern)):
        raise LuodiError(
            f"{folder.source} has no tokenizer.json (nor vocab.txt, vocab.json or a .model): no tokens are known"
        )
    try:
        with quiet():
            return transformers.AutoTokenizer.from_pretrained(
                str(folder.path), trust_remote_code=False, local_files_only=True
            )
    except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError) as error:
        why = str(error).split("\n", 1)[0][:300]
        raise LuodiError(f"{folder.source}: its tokenizer cannot be opened ({why})") from error


def longest(folder: Folder, said: float = ENDLESS) -> int:
    """Most tokens of a text: the model's places, and what the tokenizer says; 0 if neither knows."""
    config, found = folder.config, []
    places = next((config[key] for key in ("max_position_embeddings", "n_positions") if config.get(key)), None)
    if isinstance(places, int) and places > 0:
        shift = (config.get("pad_token_id") or 1) + 1 if config.get("model_type") in SHIFTED else 0
        found.append(places - shift)
    if said < ENDLESS:
        found.append(int(said))
    return min(found, default=0)


def waiting(task: Task) -> dict[str, Any]:
    """Column -> the text fields of a task that wait for a pretrained tokenizer."""
    inputs: Mapping[str, Any] = vars(task).get("inputs") or {}
    return {
        name: one
        for name, one in inputs.items()
        if vars(one).get("tokens") == "pretrained" and vars(one).get("learned") is None
    }


def with_tokens(task: Task, tokens: Tokens, source: str) -> Task:
    """The task with these tokens in every field that waits; raises LuodiError where a field keeps more than can be."""
    found = waiting(task)
    for name, one in found.items():
        if tokens.most and one.length > tokens.most:
            raise LuodiError(
                f"{name}: {source} reads texts of at most {tokens.most} tokens; set length to that or less"
            )
    given = {name: one.given(tokens.content, tokens.pad, tokens.ends, tokens.names) for name, one in found.items()}
    return task.model_copy(update={"inputs": {**vars(task)["inputs"], **given}}) if given else task


def _ends(opened: Any, folder: Folder) -> Iterator[int]:
    """Ids that end a text: the tokenizer's own first, then what the model's settings name."""
    path, seen = folder.path / "generation_config.json", set()
    generation = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for said in (opened.eos_token_id, generation.get("eos_token_id"), folder.config.get("eos_token_id")):
        for one in said if isinstance(said, list) else [said]:
            if isinstance(one, int) and one not in seen and 0 <= one < len(opened):
                seen.add(one)
                yield one
