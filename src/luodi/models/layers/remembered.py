"""A causal network of the transformers library that goes on from keys and values that are given to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

FULL, SLIDING = "full_attention", "sliding_attention"


def kinds_of(config: Any) -> list[str]:
    """The kind of attention of each layer; ValueError if one is neither full nor a sliding window."""
    kinds: list[str] = list(getattr(config, "layer_types", None) or ())
    if not kinds:
        window = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
        kinds = [SLIDING if window else FULL] * config.num_hidden_layers
    if odd := sorted(set(kinds) - {FULL, SLIDING}):
        raise ValueError(f"layers of the kind {', '.join(odd)} keep no plain keys and values")
    return kinds


def remembered(
    network: Any, tokens: Tensor, past: Tensor | None, start: Tensor | None, places: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(logits (batch, time, vocabulary), new (batch, layers, 2, kv_heads, time, head width)); logits of these `places`
    alone if they are given.

    `past` (batch, layers, 2, kv_heads, held, head width) holds what came before, of which the first `start` (batch,)
    of each row are real: these are hidden from nobody whose window reaches them, whatever the other rows hold.
    """
    from transformers import DynamicCache

    cache: Any
    if past is None or start is None:
        cache = DynamicCache()
        held, given = 0, {}
    else:
        cache = DynamicCache([(past[:, layer, 0], past[:, layer, 1]) for layer in range(past.shape[1])])
        held = past.shape[4]
        at = start[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        given = {"position_ids": at, "attention_mask": _masks(network, at, start, held)}
    if places is not None:
        given["logits_to_keep"] = places
    logits = network(input_ids=tokens, past_key_values=cache, use_cache=True, **given).logits
    layers: list[Any] = cache.layers
    pairs = [torch.stack([layer.keys[:, :, held:], layer.values[:, :, held:]], dim=1) for layer in layers]
    return logits, torch.stack(pairs, dim=1)


def imagined(network: Any, tokens: Tensor) -> dict[str, Any]:
    """What goes beside tokens on the meta device, where the library cannot look into places to make its masks."""
    places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    return {"position_ids": places, "attention_mask": _masks(network, places, places[:, 0], 0)}


def _masks(network: Any, places: Tensor, start: Tensor, held: int) -> Any:
    """Which keys each query sees, by true places: one mask, or one for each kind of layer where there are two.

    The library's own masks count the slots of the memory, of which rows that began later leave some empty.
    """
    slots = torch.arange(held, device=places.device)
    real = slots < start[:, None]
    keys = torch.cat([slots.expand(len(places), held), places], dim=1)  # the place of each key
    real = torch.cat([real, torch.ones_like(places, dtype=torch.bool)], dim=1)
    distance = places[:, :, None] - keys[:, None]
    full = (distance >= 0) & real[:, None]
    kinds = set(kinds_of(network.config))
    found = {FULL: full}
    if SLIDING in kinds:
        found[SLIDING] = full & (distance < network.config.sliding_window)
    ready = {kind: _ready(network, mask[:, None]) for kind, mask in found.items()}
    if getattr(network.config, "layer_types", None) and SLIDING in kinds:
        return ready
    return ready[SLIDING] if SLIDING in kinds else ready[FULL]


def _ready(network: Any, seen: Tensor) -> Tensor:
    """As the network's way of attention wants it: truths, or what is added to the scores."""
    if network.config._attn_implementation == "sdpa":
        return seen
    kind = next(network.parameters()).dtype
    return torch.zeros(seen.shape, dtype=kind, device=seen.device).masked_fill(~seen, torch.finfo(kind).min)
