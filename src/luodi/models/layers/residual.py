"""The layers of a residual network (arXiv 1512.03385), by torchvision's names."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from luodi.models.layers.channels_last import ChannelsLast

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # blocks of the four layers by depth (table 1)

# Below it torch 2.13 on a CPU writes past its memory in the gradient of a 1 x 1 convolution of stride 2, channels last.
NARROWEST = 8

Stem = Literal["large", "small"]


class Residual(nn.Module):
    """Two convolutions of 3 x 3 added to what came in, which goes through one of 1 x 1 where its shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        same = stride == 1 and before == after
        self.downsample = None if same else nn.Sequential(
            nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def residual_layers(channels: int, depth: Literal[18, 34], width: int, stem: Stem) -> dict[str, nn.Module]:
    """Name -> layer, one after the other: `channels` of the image in, 8 x `width` out.

    The `large` stem halves the sides twice (7 x 7 and pooling), the `small` one, for images of some 32 pixels, not
    at all (3 x 3, section 4.2); three of the four layers halve them again. Raises ValueError for a width below 8.
    """
    if width < NARROWEST:
        raise ValueError(f"a residual network begins with {NARROWEST} channels at least, got {width}")
    large = stem == "large"
    found: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(channels, width, 7 if large else 3, 2 if large else 1, 3 if large else 1, bias=False),
        "layout": ChannelsLast(),
        "bn1": nn.BatchNorm2d(width),
        "relu": nn.ReLU(),
    }
    if large:
        found["maxpool"] = nn.MaxPool2d(3, 2, 1)
    before = width
    for place, count in enumerate(BLOCKS[depth]):
        after = width << place
        blocks = [Residual(before if at == 0 else after, after, 2 if place and at == 0 else 1) for at in range(count)]
        found[f"layer{place + 1}"], before = nn.Sequential(*blocks), after
    for layer in found.values():
        _begin(layer)
    return found


def _begin(layer: nn.Module) -> None:
    """First weights of rectified convolutions (arXiv 1502.01852)."""
    for inner in layer.modules():
        if isinstance(inner, nn.Conv2d) and not inner.weight.is_meta:
            nn.init.kaiming_normal_(inner.weight, mode="fan_out", nonlinearity="relu")
