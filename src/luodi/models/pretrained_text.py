"""Text encoders of the transformers library."""

from __future__ import annotations

from inspect import signature
from typing import Any, Literal

from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.ends import Heads
from luodi.models.layers.named import built, named, refuse_foreign
from luodi.models.layers.span_heads import SpanHeads, are_spans
from luodi.models.layers.whole_state import whole_state
from luodi.models.layers.words import mean_of, texts_of


class PretrainedText(nn.Module):
    """A text encoder of the transformers library, made from the name of its class and its config, with own heads.

    `architecture` is a base class (BertModel), `config` what its config.json holds; the step `pretrained` fills in
    both. One text goes in; its tokens' states are averaged (`mean`) or the first one is taken (`first`), `dropout` is
    a share 0..1 of them. A linear layer an output follows, or nothing (`heads: none`): the answer is that vector. Where
    spans of the text are learned, each state stands for itself, and `<text>_part` says which of two texts a token is
    of. The tensors are named as in the library, behind `network.`. Nothing is downloaded. Raises ValueError for
    anything else.
    """

    packages = {"transformers": "hub"}

    def __init__(
        self,
        inputs: dict[str, Spec],
        outputs: dict[str, Spec],
        *,
        architecture: str | None = None,
        config: dict | None = None,
        pooling: Literal["mean", "first"] = "mean",
        heads: Literal["linear", "none"] = "linear",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        names = texts_of(inputs, "pretrained_text")
        if len(names) != 1 or not 0 <= dropout < 1:
            raise ValueError(f"pretrained_text takes one text and a dropout in [0, 1), got {names} and {dropout}")
        self.text, self.pooling = names[0], pooling
        self.network, known = encoder_of(architecture, config, inputs[self.text].size, "pretrained_text")
        self.dropout = nn.Dropout(dropout)
        self.parts = f"{self.text}_part" in inputs and getattr(known, "type_vocab_size", 0) > 1
        self.spans = are_spans(outputs)
        own = SpanHeads if self.spans else Heads if heads == "linear" else _Same
        self.heads = own(known.hidden_size, outputs)

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        mask = batch[f"{self.text}_mask"]
        seen = None if mask.is_meta else mask  # the library looks whether a mask hides something: there is nothing yet
        parts = {"token_type_ids": batch[f"{self.text}_part"]} if self.parts else {}
        states = self.network(input_ids=batch[self.text], attention_mask=seen, **parts).last_hidden_state
        if self.spans:
            return self.heads(self.dropout(states))
        found = mean_of(states, mask) if self.pooling == "mean" else states[:, 0]
        return self.heads(self.dropout(found))


class _Same(nn.Module):
    """The vector as the only output."""

    def __init__(self, width: int, outputs: dict[str, Spec]) -> None:
        super().__init__()
        (self.name, spec), *others = outputs.items()
        if others or spec.shape != (width,):
            raise ValueError(f"pretrained_text: heads: none answers {width} numbers; set the task's `width: {width}`")

    def forward(self, vector: Tensor) -> dict[str, Tensor]:
        return {self.name: vector}


def encoder_of(architecture: str | None, config: dict[str, Any] | None, size: int, who: str) -> tuple[nn.Module, Any]:
    """(a text encoder of the library, its config); ValueError unless it knows `size` tokens."""
    architecture, config = named(architecture, config, who)
    refuse_foreign(config, who)
    network: Any = _encoder(architecture, config)
    if network.config.vocab_size < size:
        raise ValueError(
            f"{who}: the texts have {size} tokens, the model knows {network.config.vocab_size}; they are not of one "
            "kind"
        )
    return whole_state(network), network.config


def _encoder(architecture: str, config: dict[str, Any]) -> nn.Module:
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES as KNOWN

    kind = built(architecture, KNOWN, "text encoder")
    given = kind.config_class.from_dict(config)
    # The pooler is a layer that only the library's own heads use.
    bare = {"add_pooling_layer": False} if "add_pooling_layer" in signature(kind.__init__).parameters else {}
    return kind(given, **bare)
