"""A Gemma 3 language model from a GGUF file, as the folder that transformers opens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from luodi.core.catalog import require
from luodi.data.samples.formats.gguf import GGUF, read

NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "token_embd": "embed_tokens", "output_norm": "norm",
}  # fmt: skip
CONTROL, OWN = 3, 4  # types of pieces: marks that no text becomes, and pieces that are cut out before all others
NORMAL = 1
EVERY = 6  # each sixth layer looks at everything, the others at a window


def name_of(name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    layer, part = re.sub(r"^blk\.(\d+)\.", r"layers.\1.", name).removesuffix(".weight").rpartition(".")[::2]
    return f"model.{layer}{'.' if layer else ''}{NAMES[part]}.weight"


def config(file: GGUF) -> dict[str, Any]:
    """What transformers' Gemma3ForCausalLM is built from."""
    given = {name.removeprefix("gemma3."): value for name, value in file.values.items()}
    layers, special = given["block_count"], "tokenizer.ggml.{}_token_id".format
    eps = float(f"{given['attention.layer_norm_rms_epsilon']:.6g}")  # a float32 of the file: 1e-6 again
    kinds = ["full_attention" if (at + 1) % EVERY == 0 else "sliding_attention" for at in range(layers)]
    return {
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "dtype": "bfloat16",
        "vocab_size": len(given["tokenizer.ggml.tokens"]), "hidden_size": given["embedding_length"],
        "num_hidden_layers": layers, "intermediate_size": given["feed_forward_length"],
        "num_attention_heads": given["attention.head_count"],
        "num_key_value_heads": given["attention.head_count_kv"], "head_dim": given["attention.key_length"],
        "query_pre_attn_scalar": given["attention.key_length"], "max_position_embeddings": given["context_length"],
        "rms_norm_eps": eps, "rope_theta": given["rope.freq_base"], "rope_local_base_freq": 10000.0,
        "sliding_window": given["attention.sliding_window"], "layer_types": kinds, "attention_bias": False,
        "attention_dropout": 0.0, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True,
        "bos_token_id": given[special("bos")], "eos_token_id": given[special("eos")],
        "pad_token_id": given[special("padding")],
    }  # fmt: skip


def merges(pieces: Sequence[str], scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """The pairs that become one piece, the best piece first: what byte-pair encoding does by SentencePiece's scores."""
    number = {piece: at for at, piece in enumerate(pieces)}
    found: list[tuple[float, str, str]] = []
    for piece, score in scores.items():
        cuts = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        known = [cut for cut in cuts if cut[0] in scores and cut[1] in scores]
        found += [(-score, *cut) for cut in sorted(known, key=lambda cut: (number[cut[0]], number[cut[1]]))]
    return [(left, right) for _, left, right in sorted(found, key=lambda one: one[0])]  # stable: equal ones stay


def tokenizer(file: GGUF) -> Any:
    """Byte-pair encoding over `▁` for spaces, unknown characters as their bytes, and `<bos> text`."""
    tokenizers = require("tokenizers", "text")
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    pieces, kinds = file.values["tokenizer.ggml.tokens"], file.values["tokenizer.ggml.token_type"]
    listed = zip(pieces, file.values["tokenizer.ggml.scores"], kinds, strict=True)
    scores = {piece: score for piece, score, kind in listed if kind == NORMAL}
    vocabulary = {piece: at for at, piece in enumerate(pieces)}
    made = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges(pieces, scores), unk_token="<unk>", byte_fallback=True, fuse_unk=True)  # noqa: S106
    )
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    added = tokenizers.AddedToken
    made.add_tokens([added(one, normalized=False) for one, kind in zip(pieces, kinds, strict=True) if kind == OWN])
    marks = [one for one, kind in zip(pieces, kinds, strict=True) if kind == CONTROL]
    made.add_special_tokens([added(one, normalized=False) for one in marks])
    return made


def write(raw: bytes, folder: Path) -> None:
    """The folder that transformers' Gemma3ForCausalLM and AutoTokenizer open; weights in bfloat16, as published."""
    import torch
    from safetensors.torch import save_file

    file = read(raw)
    tensors = {}
    for name in file.tensors:
        array = file.array(name)
        # llama.cpp keeps what a norm multiplies with; the model adds 1 to its weight.
        array = array - 1 if name.endswith("norm.weight") else array
        tensors[name_of(name)] = torch.from_numpy(array.copy()).to(torch.bfloat16)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    tokenizer(file).save(str(folder / "tokenizer.json"))
    made = config(file)
    words = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": made["max_position_embeddings"],
        "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>",
        "model_input_names": ["input_ids", "attention_mask"], "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    for name, value in (("config", made), ("tokenizer_config", words)):
        (folder / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
