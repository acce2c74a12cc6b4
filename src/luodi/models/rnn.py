"""A recurrent language model."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from luodi.core.spec import Spec
from luodi.models.layers.words import language_of


class RNN(nn.Module):
    """A recurrent network that says what comes next: layers of LSTM or GRU over a text (arXiv 1308.0850).

    One input of tokens (batch, time) int64 with its mask, and logits (batch, time, vocabulary) under the same name.
    `width` numbers stand for a token, `hidden` is the size of a layer's state, `dropout` a share 0..1 of what goes into
    each layer. With `state` (batch, layers, parts, hidden), 2 parts of LSTM and 1 of GRU, a text goes on where it ended
    (each row where its mask ends), and `carried` is the state after it. An exported form takes one token a call.
    Raises ValueError for other inputs.
    """

    one_by_one = True  # runtimes keep the length that a recurrent layer was traced with

    def __init__(
        self,
        inputs: dict[str, Spec],
        outputs: dict[str, Spec],
        *,
        cell: Literal["lstm", "gru"] = "lstm",
        layers: int = 2,
        width: int = 128,
        hidden: int = 256,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.name, size = language_of(inputs, outputs, "rnn")
        if min(layers, width, hidden) < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"rnn: sizes are at least 1, dropout in [0, 1), got {layers}, {width}, {hidden}, {dropout}"
            )
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        widths = [width, *[hidden] * (layers - 1)]
        self.tokens = nn.Embedding(size, width)
        self.layers = nn.ModuleList(kind(one, hidden, batch_first=True) for one in widths)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.Linear(hidden, size)
        self.shape = (layers, 2 if cell == "lstm" else 1, hidden)

    @property
    def states(self) -> dict[str, tuple[Spec, str]]:
        """State input -> (its spec, the output that takes its place)."""
        return {"state": (Spec(kind="state", shape=self.shape), "carried")}

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        tokens, state, mask = batch[self.name], batch.get("state"), batch.get(f"{self.name}_mask")
        x, carried = self.tokens(tokens), []
        # Only where the state is wanted does it matter where each row ends.
        ends = mask.sum(1).cpu() if state is not None and mask is not None and tokens.shape[1] > 1 else None
        for place, layer in enumerate(self.layers):
            begun = None if state is None else state[:, place].transpose(0, 1).contiguous()
            x, last = _through(layer, self.dropout(x), begun, ends)
            carried.append(last)
        answers = {self.name: self.heads(self.dropout(x))}
        if state is not None:
            answers["carried"] = torch.stack(carried, dim=1)
        return answers


def _through(layer: Any, x: Tensor, begun: Tensor | None, ends: Tensor | None) -> tuple[Tensor, Tensor]:
    """States at every place and, (batch, parts, hidden), those at each row's end; `begun` is (parts, batch, hidden)."""
    two = isinstance(layer, nn.LSTM)
    start = None if begun is None else (begun[:1], begun[1:]) if two else begun
    if ends is None:
        found, last = layer(x, start)
    else:
        packed, last = layer(pack_padded_sequence(x, ends, batch_first=True, enforce_sorted=False), start)
        found, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
    return found, (torch.cat(last) if two else last).transpose(0, 1)
