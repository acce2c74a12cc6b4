"""The inverted residual block of MobileNetV2 and EfficientNet."""

from __future__ import annotations

from torch import Tensor, nn

# As the original counts them: TensorFlow's momentum of 0.99 is torch's 0.01.
MOMENTUM, EPS = 0.01, 1e-3


class Filtered(nn.Module):
    """Convolution, norm, and ReLU6 unless `linear`. Padded as TensorFlow pads "same": the odd pixel comes last.

    `sides` (height, width) are the image's before; afterwards those of the result.
    """

    def __init__(
        self, before: int, after: int, kernel: int, stride: int, sides: tuple[int, int], groups: int = 1,
        linear: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.sides = (-(-sides[0] // stride), -(-sides[1] // stride))
        down, across = (max((new - 1) * stride + kernel - old, 0) for new, old in zip(self.sides, sides, strict=True))
        even = down % 2 == 0 and across % 2 == 0
        around = (across // 2, across - across // 2, down // 2, down - down // 2)
        self.pad = nn.Identity() if even else nn.ZeroPad2d(around)
        padding = (down // 2, across // 2) if even else 0
        self.convolution = nn.Conv2d(before, after, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(after, eps=EPS, momentum=MOMENTUM)
        self.activation = nn.Identity() if linear else nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.convolution(self.pad(x))))


class Inverted(nn.Module):
    """Widened by a 1 x 1 convolution, filtered channel by channel, narrowed again (arXiv 1801.04381).

    The last convolution has no activation. The input is added where the shape stays. Without widening (1) the first
    convolution is left out.
    """

    def __init__(
        self, before: int, after: int, kernel: int, stride: int, widening: int, sides: tuple[int, int]
    ) -> None:
        super().__init__()
        wide = before * widening
        self.widen = Filtered(before, wide, 1, 1, sides) if widening > 1 else nn.Identity()
        self.depthwise = Filtered(wide, wide, kernel, stride, sides, groups=wide)
        self.sides = self.depthwise.sides
        self.narrow = Filtered(wide, after, 1, 1, self.sides, linear=True)
        self.adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y = self.narrow(self.depthwise(self.widen(x)))
        return x + y if self.adds else y
