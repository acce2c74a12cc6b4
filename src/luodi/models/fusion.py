"""A picture and a text, read together."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.crossing import Crossing
from luodi.models.layers.encoders import ImageEncoder, TextEncoder
from luodi.models.layers.ends import Gather, Heads
from luodi.models.layers.reading import pooled


class Fusion(nn.Module):
    """A picture and a text read together: a convolutional network, a Transformer, and what one tells the other.

    `concatenation` puts the two vectors side by side, into one layer; with `cross_attention` cells and tokens first
    look at each other (co-attention, arXiv 1908.02265); with `modulation` the text scales and shifts the channels of
    the image network (FiLM, arXiv 1709.07871), which alone answers. With one of the two inputs the same layers stand
    alone; numbers and categories join before the heads. `depth` and `channels` are those of a resnet, `layers` of a
    text encoder from scratch; `architecture` and `config` name one of the transformers library, which the step
    `pretrained_parts` fills in. Both sides become vectors of `width`. Raises ValueError for two pictures, two texts, or
    neither.
    """

    def __init__(
        self,
        inputs: dict[str, Spec],
        outputs: dict[str, Spec],
        *,
        fuse: Literal["concatenation", "cross_attention", "modulation"] = "concatenation",
        image: Literal["resnet", "efficientnet_lite"] = "resnet",
        depth: Literal[18, 34] = 18,
        channels: int = 64,
        architecture: str | None = None,
        config: dict | None = None,
        layers: int = 2,
        width: int = 128,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width < 1 or not 0 <= dropout < 1:
            raise ValueError(f"fusion: width is at least 1, dropout in [0, 1), got {width} and {dropout}")
        self.picture, self.text = _sides(inputs)
        if self.picture is not None and self.text is not None:
            self.fuse = fuse
        else:
            self.fuse = "alone"
        if self.picture is not None:
            told = width if self.fuse == "modulation" else 0
            self.image = ImageEncoder(inputs[self.picture], image, depth=depth, channels=channels, told=told)
            self.see, self.image_norm = nn.Linear(self.image.width, width), nn.LayerNorm(width)
        if self.text is not None:
            self.words = TextEncoder(
                inputs[self.text], architecture, config, layers=layers, width=width, heads=heads, dropout=dropout
            )
            self.read, self.text_norm = nn.Linear(self.words.width, width), nn.LayerNorm(width)
        self.crossing = Crossing(width, heads, dropout) if self.fuse == "cross_attention" else None
        if self.fuse in ("concatenation", "cross_attention"):
            self.joined = nn.Sequential(nn.Linear(2 * width, width), nn.GELU())
        taken = (self.picture, self.text, f"{self.text}_mask")
        others = {name: spec for name, spec in inputs.items() if name not in taken}
        self.others = Gather(others) if others else None
        self.dropout = nn.Dropout(dropout)
        self.heads = Heads(width + (self.others.width if self.others else 0), outputs)

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        if self.picture is None:
            vector = self._text_vector(*self._tokens(batch))
        elif self.text is None:
            vector = self._image_vector(self._cells(batch))
        else:
            vector = self._fused(batch)
        if self.others is not None:
            vector = torch.cat([vector, self.others(batch)], dim=1)
        return self.heads(self.dropout(vector))

    def _fused(self, batch: dict[str, Tensor]) -> Tensor:
        tokens, mask = self._tokens(batch)
        if self.fuse == "modulation":
            return self._image_vector(self._cells(batch, self._text_vector(tokens, mask)))
        cells = self._cells(batch)
        if self.crossing is not None:
            cells, tokens = self.crossing(cells, tokens, mask)
        return self.joined(torch.cat([self._image_vector(cells), self._text_vector(tokens, mask)], dim=1))

    def _cells(self, batch: dict[str, Tensor], told: Tensor | None = None) -> Tensor:
        """The picture as (batch, cells, width)."""
        features = self.image(batch[str(self.picture)], told)
        return self.see(features.flatten(2).transpose(1, 2))

    def _tokens(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The text as (batch, time, width), and where it is real."""
        mask = batch[f"{self.text}_mask"]
        return self.read(self.words(batch[str(self.text)], mask)), mask > 0

    def _image_vector(self, cells: Tensor) -> Tensor:
        return self.image_norm(cells.mean(1))

    def _text_vector(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.text_norm(pooled(tokens, mask, "mean"))


def _sides(inputs: dict[str, Spec]) -> tuple[str | None, str | None]:
    """The image and the text, or None for one of them."""
    images = [name for name, spec in inputs.items() if spec.kind == "image"]
    texts = [name for name, spec in inputs.items() if spec.kind == "tokens"]
    if len(images) > 1 or len(texts) > 1 or not (images or texts):
        told = ", ".join(f"{name} ({spec.kind})" for name, spec in inputs.items())
        raise ValueError(f"fusion takes one image, one text, or one of both, got {told}")
    if texts and f"{texts[0]}_mask" not in inputs:
        raise ValueError(f"fusion: {texts[0]} comes without its mask ({texts[0]}_mask)")
    return next(iter(images), None), next(iter(texts), None)
