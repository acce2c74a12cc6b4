"""A small Transformer that reads an image row by row: a model for the benchmarks, named by import path."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from luodi.core.spec import Spec


class SmallTransformer(nn.Module):
    """Rows of pixels as tokens, an encoder of `depth` layers, their mean to one linear layer."""

    def __init__(
        self, inputs: dict[str, Spec], outputs: dict[str, Spec], *, width: int = 64, depth: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        (self.image,), (self.target,) = inputs, outputs
        channels, height, across = (int(side) for side in inputs[self.image].shape)
        self.embed = nn.Linear(channels * across, width)
        self.places = nn.Parameter(torch.randn(height, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.heads = nn.Linear(width, outputs[self.target].size)

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        rows = batch[self.image].transpose(1, 2).flatten(2)
        return {self.target: self.heads(self.layers(self.embed(rows) + self.places).mean(1))}
