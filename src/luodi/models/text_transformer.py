"""A Transformer that reads texts in both directions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.ends import Heads
from luodi.models.layers.reading import Reading, pooled, texts_in
from luodi.models.layers.span_heads import SpanHeads, are_spans
from luodi.models.layers.transformer_block import begin


class TextTransformer(nn.Module):
    """A Transformer encoder trained from scratch for texts, with one linear head for each target.

    Inputs are tokens (batch, time) int64, each with its mask (1 at real tokens) if it is padded; each text has its own
    encoder, the pooled vectors lie side by side. `pooling` is the mean over real tokens or the first token. `first`
    puts the norm before attention and layer, as GPT-2 does, else after the sum, as BERT does. `context` is the largest
    length for learned positions. Where spans of the only text are learned, nothing is pooled, and its input
    `<text>_part`, 1 in the second of two texts, is told to each token. Raises ValueError for other inputs.
    """

    def __init__(
        self,
        inputs: dict[str, Spec],
        outputs: dict[str, Spec],
        *,
        layers: int = 2,
        width: int = 128,
        heads: int = 4,
        kv_heads: int | None = None,
        context: int = 512,
        positions: Literal["learned", "rotary", "sinusoidal"] = "learned",
        norm: Literal["layer", "rms"] = "layer",
        first: bool = True,
        gated: bool = False,
        dropout: float = 0.1,
        bias: bool = True,
        pooling: Literal["mean", "first"] = "mean",
    ) -> None:
        super().__init__()
        self.texts, self.pooling = texts_in(inputs, "text_transformer"), pooling
        if min(layers, context) < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"text_transformer: layers {layers} and context {context} are at least 1, dropout {dropout} in [0, 1)"
            )
        readers = [
            Reading(
                inputs[name].size, layers=layers, width=width, heads=heads, kv_heads=kv_heads, context=context,
                positions=positions, norm=norm, first=first, gated=gated, dropout=dropout, bias=bias,
            )
            for name in self.texts
        ]  # fmt: skip
        # The first is no member of the list: its blocks, not itself, are then the stages of a training.
        self.reader, self.others = readers[0], nn.ModuleList(readers[1:])
        self.dropout = nn.Dropout(dropout)
        self.spans = are_spans(outputs)
        if self.spans and len(readers) > 1:
            raise ValueError("text_transformer finds spans in one text, or in two that are one row of tokens")
        self.part = f"{next(iter(self.texts))}_part"
        self.told = nn.Embedding(2, width) if self.part in inputs else None
        self.heads = (SpanHeads if self.spans else Heads)(width * len(self.texts), outputs)
        begin(self, layers)

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        vectors = []
        for reader, (name, masked) in zip((self.reader, *self.others), self.texts.items(), strict=True):
            mask = None if masked is None else batch[masked] > 0
            told = None if self.told is None else self.told(batch[self.part])
            states = reader(batch[name], mask, told)
            if self.spans:
                return self.heads(self.dropout(states))
            vectors.append(pooled(states, mask, self.pooling))
        return self.heads(self.dropout(vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=1)))
