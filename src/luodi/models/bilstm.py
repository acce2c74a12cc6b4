"""A bidirectional LSTM with attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.ends import Heads
from luodi.models.layers.recurrent import Recurrent
from luodi.models.layers.words import softmax_of, texts_of


class BiLSTM(nn.Module):
    """A bidirectional LSTM over each text, its states weighed by learned attention (ACL P16-2034), one head a target.

    `width` numbers stand for a token, `hidden` is the size of each direction's state, `layers` are stacked, `dropout`
    is a share 0..1 of the embeddings and of the weighed states. Padding moves no state.
    """

    def __init__(
        self,
        inputs: dict[str, Spec],
        outputs: dict[str, Spec],
        *,
        width: int = 128,
        hidden: int = 128,
        layers: int = 1,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        if min(width, hidden, layers) < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"bilstm: sizes are at least 1, dropout in [0, 1), got {width}, {hidden}, {layers}, {dropout}"
            )
        self.names = texts_of(inputs, "bilstm")
        self.tables = nn.ModuleList(nn.Embedding(inputs[name].size, width) for name in self.names)
        self.encoders = nn.ModuleList(Recurrent(width, hidden, layers) for _ in self.names)
        self.scores = nn.ModuleList(nn.Linear(2 * hidden, 1) for _ in self.names)
        self.dropout = nn.Dropout(dropout)
        self.heads = Heads(2 * hidden * len(self.names), outputs)

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        found = []
        for place, name in enumerate(self.names):
            states, shares = self.weighed(place, batch[name], batch[f"{name}_mask"])
            found.append((states * shares.unsqueeze(-1)).sum(1))
        return self.heads(self.dropout(torch.cat(found, dim=1)))

    def weighed(self, place: int, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """States (batch, length, 2 x hidden) of one text input, and the share of attention of each, (batch, length)."""
        states = self.encoders[place](self.dropout(self.tables[place](ids)), mask)
        return states, softmax_of(self.scores[place](torch.tanh(states)).squeeze(-1), mask)
