"""Language models of the transformers library."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import torch
from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.named import built, named, refuse_foreign
from luodi.models.layers.remembered import imagined, kinds_of, remembered
from luodi.models.layers.whole_state import whole_state
from luodi.models.layers.words import language_of


class PretrainedLanguage(nn.Module):
    """A causal language model of the transformers library, made from the name of its class and its config.

    `architecture` is a class for it (Gemma3ForCausalLM), `config` what its config.json holds; the step `pretrained`
    fills in both. Tokens in, logits out, and the memory `past` with `new`, as `gpt` has them; logits of ids that no
    token has are left off, and with `last` (batch,) all but those of one place of each row. Layers attend to all before
    them or to a window. The tensors are named as in the library, behind `network.`. Nothing is downloaded. Raises
    ValueError for anything else.
    """

    def __init__(
        self,
        inputs: dict[str, Spec],
        outputs: dict[str, Spec],
        *,
        architecture: str | None = None,
        config: dict | None = None,
    ) -> None:
        super().__init__()
        self.name, self.size = language_of(inputs, outputs, "pretrained_language")
        architecture, config = named(architecture, config, "pretrained_language")
        refuse_foreign(config, "pretrained_language")
        network: Any = _built(architecture, config)
        self.network, known = whole_state(network), network.config
        if known.vocab_size < self.size:
            raise ValueError(
                f"pretrained_language: the texts have {self.size} tokens, the model knows {known.vocab_size}; "
                "they are not of one kind"
            )
        heads = getattr(known, "num_key_value_heads", None) or known.num_attention_heads
        width = getattr(known, "head_dim", None) or known.hidden_size // known.num_attention_heads
        self.chooses = "logits_to_keep" in inspect.signature(network.forward).parameters
        self.shape = (known.num_hidden_layers, 2, heads, "held", width)

    @property
    def states(self) -> dict[str, tuple[Spec, str]]:
        """State input -> (its spec, the output that is appended to it along "held")."""
        return {"past": (Spec(kind="state", shape=self.shape), "new")}

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        tokens, past, start = batch[self.name], batch.get("past"), batch.get("start")
        last = batch.get("last") if self.chooses else None
        places, order = (None, None) if last is None else last.unique(return_inverse=True)
        if past is None:
            given = imagined(self.network, tokens) if tokens.is_meta else {}
            given |= {} if places is None else {"logits_to_keep": places}
            logits, new = self.network(input_ids=tokens, use_cache=False, **given).logits, {}
        else:
            if past.shape[4] == 0:
                past, start = None, None  # nothing is held: the fused way
            logits, pairs = remembered(self.network, tokens, past, start, places)
            new = {"new": pairs}
        if order is not None:
            logits = logits[torch.arange(len(logits), device=logits.device), order][:, None]
        return {self.name: logits[..., : self.size], **new}


def _built(architecture: str, config: dict[str, Any]) -> nn.Module:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    kind = built(architecture, KNOWN, "language model")
    given = kind.config_class.from_dict(config)
    # Masks by place can be given to those alone that make theirs by the library's common functions.
    common = hasattr(sys.modules[kind.__module__], "create_causal_mask")
    if not common or "position_ids" not in inspect.signature(kind.forward).parameters:
        raise ValueError(f"pretrained_language: {architecture} attends in a way of its own, and cannot be wrapped")
    if getattr(given, "use_bidirectional_attention", None):
        raise ValueError(f"pretrained_language: {architecture} with use_bidirectional_attention looks ahead")
    kinds_of(given)
    return kind(given)
