"""A text field's tokens as the files that the transformers library opens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from luodi.core.catalog import require
from luodi.core.errors import LuodiError
from luodi.fields.texts.cutters import END, MARKS, PAD, SPECIAL, START, UNKNOWN

if TYPE_CHECKING:
    from luodi.fields.text import Text

OURS = {"pad_token": PAD, "unk_token": UNKNOWN, "bos_token": START, "eos_token": END}
TRIED = 48  # made texts on which the two must agree


def published(field: Text, *, prompts: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """(tokenizer.json, tokenizer_config.json); raises LuodiError where they would cut otherwise than the field does."""
    if field.tokens == "word":
        raise LuodiError("words are cut by jieba and by rule, which a tokenizer.json cannot: take character or bpe")
    assert field.learned is not None
    held = json.loads(field.learned.content())
    names: dict[str, str] = held.get(MARKS, {}).get("names", {})
    if field.tokens == "character":
        held, names = _characters(held["units"]), OURS
    held.pop(MARKS, None)
    if field.tokens != "pretrained":
        names = OURS
        held["normalizer"] = _settling(field)
        held["post_processor"] = _framing(prompts) if field.marks else None
    _check(field, held)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": field.length,
        "model_input_names": ["input_ids", "attention_mask"], "clean_up_tokenization_spaces": False,
        "truncation_side": "left" if field.cut == "start" else "right", **names,
    }  # fmt: skip
    return held, config


def _characters(units: list[str]) -> dict[str, Any]:
    """Every code point is a token, those that are not listed are the unknown one."""
    library = require("tokenizers", "text")
    from tokenizers import decoders, models, pre_tokenizers

    vocabulary = {unit: place for place, unit in enumerate(units)}
    made = library.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Split(library.Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    made.add_special_tokens(list(SPECIAL))
    return json.loads(made.to_str())


def _settling(field: Text) -> dict[str, Any] | None:
    """One way of writing, as `settled` does it."""
    steps: list[dict[str, Any]] = [{"type": field.forms.upper()}] if field.forms != "keep" else []
    steps += [{"type": "Lowercase"}] if field.case == "lower" else []
    return {"type": "Sequence", "normalizers": steps} if steps else None


def _framing(prompts: bool) -> dict[str, Any]:
    from tokenizers import Tokenizer, models, processors

    made = Tokenizer(models.BPE())
    single = f"{START} $A" if prompts else f"{START} $A {END}"
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=[(START, 2), (END, 3)])
    return json.loads(made.to_str())["post_processor"]


def _check(field: Text, held: dict[str, Any]) -> None:
    """Raises LuodiError for the first made text that is cut otherwise; names of marks are left out."""
    made = require("tokenizers", "text").Tokenizer.from_str(json.dumps(held, ensure_ascii=False))
    marks = [token.content for token in made.get_added_tokens_decoder().values()]
    for text in field.example(TRIED, 0):
        if any(mark in text for mark in marks):
            continue
        (wanted,) = field.cutter.ids([field.settled(text)])
        found = made.encode(field.prefix + text, add_special_tokens=False).ids
        if found != wanted:
            raise LuodiError(f"a tokenizer.json would cut {text[:40]!r} otherwise than this field does")
