"""Residual networks of 18 and 34 layers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.ends import Gather, Heads
from luodi.models.layers.residual import residual_layers


class ResNet(nn.Module):
    """A residual network (arXiv 1512.03385) for one image of any size, and other inputs beside it.

    `depth` 18 and a `width` of 64 are the paper's ResNet-18, 11.2 million parameters without the heads; its tensors
    bear torchvision's names, whose `fc` is `heads.layers.0` here. `width` is the channels of the first layer, doubled
    in each of the next three. The `large` stem is that of ImageNet; for images of some 32 pixels take `small`. Raises
    ValueError unless exactly one input is an image and `width` at least 8.
    """

    def __init__(
        self,
        inputs: dict[str, Spec],
        outputs: dict[str, Spec],
        *,
        depth: Literal[18, 34] = 18,
        width: int = 64,
        stem: Literal["large", "small"] = "large",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        images = [name for name, spec in inputs.items() if spec.kind == "image"]
        if len(images) != 1:
            told = ", ".join(f"{name} ({spec.kind})" for name, spec in inputs.items())
            raise ValueError(f"resnet takes one image, got {told}")
        if not 0 <= dropout < 1:
            raise ValueError(f"resnet: dropout is in [0, 1), got {dropout}")
        (self.image,) = images
        layers = residual_layers(int(inputs[self.image].shape[0]), depth, width, stem)
        self.names = list(layers)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.pool = nn.AdaptiveAvgPool2d(1)
        others = {name: spec for name, spec in inputs.items() if name != self.image}
        self.others = Gather(others) if others else None
        self.dropout = nn.Dropout(dropout)
        self.heads = Heads(8 * width + (self.others.width if self.others else 0), outputs)

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        features = batch[self.image]
        for name in self.names:
            features = getattr(self, name)(features)
        vector = self.pool(features).flatten(1)
        if self.others is not None:
            vector = torch.cat([vector, self.others(batch)], dim=1)
        return self.heads(self.dropout(vector))
