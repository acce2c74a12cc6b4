"""Word embeddings, averaged."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.ends import Heads
from luodi.models.layers.words import mean_of, texts_of


class EmbeddingBag(nn.Module):
    """Word embeddings averaged over each text, then a multilayer perceptron with one head a target (arXiv 1607.01759).

    `width` numbers stand for a token, `hidden` are the layers' widths, `dropout` a share 0..1 of the means. Several
    texts have a table each, side by side.
    """

    def __init__(
        self,
        inputs: dict[str, Spec],
        outputs: dict[str, Spec],
        *,
        width: int = 128,
        hidden: tuple[int, ...] = (64,),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if width < 1 or any(size < 1 for size in hidden) or not 0 <= dropout < 1:
            raise ValueError(
                f"embedding_bag: widths are at least 1, dropout in [0, 1), got {width}, {hidden}, {dropout}"
            )
        self.names = texts_of(inputs, "embedding_bag")
        self.tables = nn.ModuleList(nn.Embedding(inputs[name].size, width) for name in self.names)
        layers: list[nn.Module] = [nn.Dropout(dropout)]
        for before, after in pairwise((width * len(self.names), *hidden)):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        self.heads = Heads(hidden[-1] if hidden else width * len(self.names), outputs)

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        found = [
            mean_of(table(batch[name]), batch[f"{name}_mask"])
            for name, table in zip(self.names, self.tables, strict=True)
        ]
        return self.heads(self.layers(torch.cat(found, dim=1)))
