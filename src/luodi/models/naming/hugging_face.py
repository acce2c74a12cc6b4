"""GPT in the names of the transformers library, and back: GPT2LMHeadModel and LlamaForCausalLM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from luodi.models.gpt import GPT

GPT2, LLAMA = "GPT2LMHeadModel", "LlamaForCausalLM"
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}  # ours -> theirs
# Our layer in a block -> theirs. A tuple lies side by side in our one layer.
GPT2_LAYERS = {
    "attention_norm": "ln_1", "attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj", "feed_norm": "ln_2",
    "feed.up": "mlp.c_fc", "feed.down": "mlp.c_proj",
}  # fmt: skip
LLAMA_LAYERS = {
    "attention_norm": ("input_layernorm",),
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.out": ("self_attn.o_proj",),
    "feed_norm": ("post_attention_layernorm",),
    "feed.up": ("mlp.gate_proj", "mlp.up_proj"),
    "feed.down": ("mlp.down_proj",),
}


def to_hugging_face(model: GPT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(what config.json holds, the tensors): learned positions make GPT2LMHeadModel, rotary ones LlamaForCausalLM.

    Layers without bias get one of zeros where GPT-2 has one. Raises ValueError for what neither of them has.
    """
    figures = {**model.figures, "size": model.placed.tokens.num_embeddings}
    _plain(model)
    told = {"learned": ("layer", False), "rotary": ("rms", True)}.get(figures["positions"])
    if told is None:
        raise ValueError(
            f"positions: {figures['positions']} has no counterpart in {GPT2} or {LLAMA}; learned, rotary have"
        )
    architecture = GPT2 if figures["positions"] == "learned" else LLAMA
    _same("width", model.placed.tokens.embedding_dim, figures["width"], "this network as it was built")
    blocks: Any = model.blocks
    for block in blocks:
        _same("hidden", block.feed.down.in_features, figures["hidden"], "this network as it was built")
    _same("norm", figures["norm"], told[0], architecture)
    _same("gated", figures["gated"], told[1], architecture)
    if architecture == LLAMA:
        return _llama_config(figures), dict(_to_llama(model))
    _same("kv_heads", figures["kv_heads"], figures["heads"], architecture)
    return _gpt2_config(figures), dict(_to_gpt2(model))


def from_hugging_face(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(the keyword arguments of GPT, its tensors) of a GPT2LMHeadModel or LlamaForCausalLM.

    Names of GPT-2 may lack their leading `transformer.`. Raises ValueError for a setting that GPT does not have, and
    for a tensor that is missing or left over.
    """
    ours, architecture = figures_of(config), config["architectures"][0]
    if architecture == GPT2:
        found = {name.removeprefix("transformer."): each for name, each in tensors.items()}
        # Files of old versions hold the masks.
        found = {name: each for name, each in found.items() if not name.endswith((".attn.bias", ".attn.masked_bias"))}
        named = _from_gpt2
    else:
        found, named = dict(tensors), _from_llama
        found = {name: each for name, each in found.items() if not name.endswith(".rotary_emb.inv_freq")}
    if ours["tied"]:
        found.pop("lm_head.weight", None)
    try:
        made = dict(named(ours, found))
    except KeyError as error:
        raise ValueError(f"the tensor {error} of {architecture} is missing") from error
    if found:
        raise ValueError(f"{architecture}: no place for the tensors {', '.join(sorted(found)[:4])}")
    return ours, made


def figures_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of GPT for this config; ValueError for another architecture, or what GPT does not have."""
    architecture = (config.get("architectures") or [None])[0]
    if architecture not in (GPT2, LLAMA):
        raise ValueError(f"architectures: {architecture} is neither {GPT2} nor {LLAMA}")
    return _of_gpt2(config) if architecture == GPT2 else _of_llama(config)


# ---- GPT-2 -------------------------------------------------------------------------------------------------------


def _gpt2_config(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "architectures": [GPT2], "model_type": "gpt2", "vocab_size": figures["size"],
        "n_positions": figures["context"], "n_embd": figures["width"], "n_layer": figures["layers"],
        "n_head": figures["heads"], "n_inner": figures["hidden"],
        "activation_function": ACTIVATIONS[figures["activation"]], "layer_norm_epsilon": figures["epsilon"],
        "resid_pdrop": figures["dropout"], "embd_pdrop": figures["dropout"], "attn_pdrop": figures["dropout"],
        "tie_word_embeddings": figures["tied"],
    }  # fmt: skip


def _to_gpt2(model: GPT) -> Iterator[tuple[str, Tensor]]:
    yield "transformer.wte.weight", model.placed.tokens.weight.detach()
    yield "transformer.wpe.weight", model.placed.places.weight.detach()
    for place, block in enumerate(model.blocks):
        for ours, theirs in GPT2_LAYERS.items():
            layer: Any = block.get_submodule(ours)
            weight, bias = layer.weight.detach(), layer.bias
            # Their linear layers hold the transpose, (in, out).
            yield f"transformer.h.{place}.{theirs}.weight", weight.T.contiguous() if weight.dim() == 2 else weight
            zeros = weight.new_zeros(weight.shape[0])
            yield f"transformer.h.{place}.{theirs}.bias", zeros if bias is None else bias.detach()
    norm: Any = model.norm
    yield "transformer.ln_f.weight", norm.weight.detach()
    yield "transformer.ln_f.bias", torch.zeros_like(norm.weight) if norm.bias is None else norm.bias.detach()
    if not model.tied:
        yield "lm_head.weight", model.heads.weight.detach()


def _of_gpt2(config: Mapping[str, Any]) -> dict[str, Any]:
    for key, wanted in (
        ("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False), ("add_cross_attention", False),
    ):  # fmt: skip
        _same(key, config.get(key, wanted), wanted, "GPT")
    activation = config.get("activation_function", "gelu_new")
    known = {theirs: ours for ours, theirs in ACTIVATIONS.items()} | {"gelu_pytorch_tanh": "gelu_tanh"}
    _among("activation_function", activation, tuple(known))
    rates = {config.get(key, 0.1) for key in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
    if len(rates) != 1:
        raise ValueError(f"resid_pdrop, embd_pdrop, attn_pdrop: GPT has one dropout, got {sorted(rates)}")
    return {
        "layers": config["n_layer"], "width": config["n_embd"], "heads": config["n_head"], "kv_heads": config["n_head"],
        "context": config["n_positions"], "positions": "learned", "norm": "layer", "gated": False,
        "activation": known[activation],
        "dropout": rates.pop(), "tied": config.get("tie_word_embeddings", True), "bias": True,
        "hidden": config.get("n_inner") or 4 * config["n_embd"], "theta": 10000.0,
        "epsilon": config.get("layer_norm_epsilon", 1e-5),
    }  # fmt: skip


def _from_gpt2(ours: Mapping[str, Any], found: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Takes out of `found` what it uses."""
    yield "placed.tokens.weight", found.pop("wte.weight")
    yield "placed.places.weight", found.pop("wpe.weight")
    for place in range(ours["layers"]):
        for mine, theirs in GPT2_LAYERS.items():
            weight = found.pop(f"h.{place}.{theirs}.weight")
            yield f"blocks.{place}.{mine}.weight", weight.T.contiguous() if weight.dim() == 2 else weight
            yield f"blocks.{place}.{mine}.bias", found.pop(f"h.{place}.{theirs}.bias")
    for kind in ("weight", "bias"):
        yield f"norm.{kind}", found.pop(f"ln_f.{kind}")
    if not ours["tied"]:
        yield "heads.weight", found.pop("lm_head.weight")


# ---- Llama -------------------------------------------------------------------------------------------------------


def _llama_config(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "architectures": [LLAMA], "model_type": "llama", "vocab_size": figures["size"], "hidden_size": figures["width"],
        "intermediate_size": figures["hidden"], "num_hidden_layers": figures["layers"],
        "num_attention_heads": figures["heads"], "num_key_value_heads": figures["kv_heads"],
        "head_dim": figures["width"] // figures["heads"], "hidden_act": "silu",
        "max_position_embeddings": figures["context"],
        "rms_norm_eps": figures["epsilon"], "rope_theta": figures["theta"],
        "rope_parameters": {"rope_type": "default", "rope_theta": figures["theta"]},
        "attention_bias": figures["bias"], "mlp_bias": figures["bias"], "attention_dropout": figures["dropout"],
        "tie_word_embeddings": figures["tied"],
    }  # fmt: skip


def _to_llama(model: GPT) -> Iterator[tuple[str, Tensor]]:
    yield "model.embed_tokens.weight", model.placed.tokens.weight.detach()
    for place, block in enumerate(model.blocks):
        for ours, theirs in LLAMA_LAYERS.items():
            for kind, tensor in block.get_submodule(ours).named_parameters():
                parts = tensor.detach().split(_sizes(model.figures, ours, tensor.shape[0]))
                for name, part in zip(theirs, parts, strict=True):
                    yield f"model.layers.{place}.{name}.{kind}", part.contiguous()
    yield "model.norm.weight", model.norm.get_parameter("weight").detach()
    if not model.tied:
        yield "lm_head.weight", model.heads.weight.detach()


def _sizes(figures: Mapping[str, Any], ours: str, rows: int) -> list[int]:
    """How many rows of our one layer each of theirs is."""
    if ours == "attention.qkv":
        each = rows // (figures["heads"] + 2 * figures["kv_heads"])
        return [figures["heads"] * each, figures["kv_heads"] * each, figures["kv_heads"] * each]
    return [rows // 2, rows // 2] if ours == "feed.up" else [rows]


def _of_llama(config: Mapping[str, Any]) -> dict[str, Any]:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    _same("rope_parameters", kind, "default", "GPT")
    _among("hidden_act", config.get("hidden_act", "silu"), ("silu",))
    width, heads = config["hidden_size"], config["num_attention_heads"]
    _same("head_dim", config.get("head_dim") or width // heads, width // heads, "GPT")
    biased = config.get("attention_bias", False)
    _same("mlp_bias", config.get("mlp_bias", False), biased, "GPT, where it is attention_bias,")
    return {
        "layers": config["num_hidden_layers"], "width": width, "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "context": config.get("max_position_embeddings", 2048), "positions": "rotary", "norm": "rms", "gated": True,
        "activation": "gelu",
        "dropout": config.get("attention_dropout") or 0.0, "tied": config.get("tie_word_embeddings", False),
        "bias": biased, "hidden": config["intermediate_size"],
        "theta": float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
        "epsilon": config.get("rms_norm_eps", 1e-6),
    }  # fmt: skip


def _from_llama(ours: Mapping[str, Any], found: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Takes out of `found` what it uses."""
    yield "placed.tokens.weight", found.pop("model.embed_tokens.weight")
    for place in range(ours["layers"]):
        for mine, theirs in LLAMA_LAYERS.items():
            for kind in ("weight", "bias") if ours["bias"] and "norm" not in mine else ("weight",):
                parts = [found.pop(f"model.layers.{place}.{name}.{kind}") for name in theirs]
                yield f"blocks.{place}.{mine}.{kind}", parts[0] if len(parts) == 1 else torch.cat(parts)
    yield "norm.weight", found.pop("model.norm.weight")
    if not ours["tied"]:
        yield "heads.weight", found.pop("lm_head.weight")


def _plain(model: GPT) -> None:
    """ValueError where a layer was replaced: adapters, integers."""
    for name, layer in model.named_modules():
        held = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
        if held and type(layer) not in (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm):
            raise ValueError(
                f"{name}: a layer of the kind {type(layer).__name__} has no counterpart in {GPT2} or {LLAMA}"
            )


def _same(name: str, value: Any, wanted: Any, where: str) -> None:
    if value != wanted:
        raise ValueError(f"{name}: {value!r} has no counterpart in {where}, which has {wanted!r}")


def _among(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}: {value!r} has no counterpart in GPT, which has {', '.join(known)}")
