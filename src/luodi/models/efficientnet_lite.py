"""EfficientNet-Lite0, a convolutional network made by search for small processors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.channels_last import ChannelsLast
from luodi.models.layers.ends import Gather, Heads
from luodi.models.layers.inverted import Filtered, Inverted

STEM, FEATURES = 32, 1280
# Kernel, stride, widening, channels and blocks of each stage (arXiv 1905.11946, table 1).
STAGES = (
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)  # fmt: skip


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0 for one colour image of any size, and other inputs beside it.

    The network of arXiv 1905.11946 with ReLU6 for swish and no squeeze-and-excitation; 3.4 million parameters without
    the heads. `stages` go from the stem to the last convolution, a stage each. Weights from ImageNet come by the step
    `pretrained`; they expect pixels as (value - 127) / 128. Raises ValueError unless exactly one input is an image of
    three channels.
    """

    def __init__(self, inputs: dict[str, Spec], outputs: dict[str, Spec], *, dropout: float = 0.2) -> None:
        super().__init__()
        images = [name for name, spec in inputs.items() if spec.kind == "image"]
        if len(images) != 1 or inputs[images[0]].shape[0] != 3:
            told = ", ".join(f"{name} ({spec.kind} {spec.shape})" for name, spec in inputs.items())
            raise ValueError(f"efficientnet_lite takes one image of three channels, got {told}")
        if not 0 <= dropout < 1:
            raise ValueError(f"efficientnet_lite: dropout is in [0, 1), got {dropout}")
        (self.image,) = images
        others = {name: spec for name, spec in inputs.items() if name != self.image}
        self.others = Gather(others) if others else None
        height, width = (int(side) for side in inputs[self.image].shape[1:])
        self.stages = stages((height, width))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.heads = Heads(FEATURES + (self.others.width if self.others else 0), outputs)

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        features = batch[self.image]
        for stage in self.stages:
            features = stage(features)
        vector = self.pool(features).flatten(1)
        if self.others is not None:
            vector = torch.cat([vector, self.others(batch)], dim=1)
        return self.heads(self.dropout(vector))


def stages(sides: tuple[int, int]) -> nn.ModuleList:
    """The stem, the seven stages of blocks, the last convolution; paddings follow from the image's sides."""
    stem = Filtered(3, STEM, 3, 2, sides)
    found: list[nn.Module] = [nn.Sequential(stem, ChannelsLast())]
    sides, channels = stem.sides, STEM
    for kernel, stride, widening, after, count in STAGES:
        blocks: list[nn.Module] = []
        for place in range(count):
            block = Inverted(channels, after, kernel, stride if place == 0 else 1, widening, sides)
            sides, channels = block.sides, after
            blocks.append(block)
        found.append(nn.Sequential(*blocks))
    found.append(Filtered(channels, FEATURES, 1, 1, sides))
    return nn.ModuleList(found)
