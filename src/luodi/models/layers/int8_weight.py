"""Linear and convolution layers whose weights are int8, with one scale an output channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from luodi.models.layers.around import around

AT_ONCE = 2**20  # numbers of a weight that are floats at a time
CONVOLVE = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}  # by the dimensions of the weight


def int8_channels(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 weight, float32 scale (out, 1, ...)): scale = amax / 127.5 of each output channel, -128..127.

    A channel of zeros gets the smallest scale, not a division by zero. On the meta device only shapes are made:
    arithmetic there would import torch's compiler, 80 MB of it, into every process that opens a bundle.
    """
    if weight.is_meta:
        flat = (weight.shape[0], *(1 for _ in weight.shape[1:]))
        return torch.empty(weight.shape, dtype=torch.int8, device="meta"), torch.empty(flat, device="meta")
    whole = weight.detach().float()
    largest = whole.abs().amax(dim=tuple(range(1, whole.dim())), keepdim=True)
    scale = (largest / 127.5).clamp(min=torch.finfo(torch.float32).eps)
    return (whole / scale).round().clamp(-128, 127).to(torch.int8), scale


def int8_product(x: Tensor, q: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """x (..., in) times the weight q * scale, of int8 (out, in) and (out, 1), transposed; plus bias.

    Of the weight's floats only a part lies in the cache at a time, and products are scaled, not weights: one token
    through a table of 50,000 x 768 takes 12 ms, not 340. Exporters know the plain way alone.
    """
    if torch.compiler.is_compiling():
        return functional.linear(x, (q * scale).to(x.dtype), bias)
    parts = [functional.linear(x, part.to(x.dtype)) for part in q.split(max(AT_ONCE // q.shape[1], 1))]
    y = torch.cat(parts, dim=-1) * scale.flatten().to(x.dtype)
    return y if bias is None else y + bias


class Int8Linear(nn.Module):
    """A linear layer with int8 weights (out, in) and scales (out, 1), dequantised in the forward."""

    q: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        q, scale = int8_channels(layer.weight)
        self.register_buffer("q", q)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    @property
    def weight(self) -> Tensor:
        """The dequantised weight, for code that reads a layer's `weight`."""
        return self.q * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return int8_product(x, self.q, self.scale, self.bias)


class Int8Conv(nn.Module):
    """A 1-, 2- or 3-dimensional convolution with int8 weights and scales (out, 1, ...), dequantised in the forward."""

    q: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        take_settings(self, layer)
        q, scale = int8_channels(layer.weight)
        self.register_buffer("q", q)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    @property
    def weight(self) -> Tensor:
        """The dequantised weight, for code that reads a layer's `weight`."""
        return self.q * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return convolved(self, x, (self.q * self.scale).to(x.dtype), self.bias)


def take_settings(mine: Any, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> None:
    """Gives a layer what says how the other convolves."""
    mine.in_channels, mine.out_channels, mine.groups = layer.in_channels, layer.out_channels, layer.groups
    mine.kernel_size, mine.stride, mine.dilation = layer.kernel_size, layer.stride, layer.dilation
    mine.padding, mine.padding_mode = layer.padding, layer.padding_mode


def convolved(mine: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x convolved as the layer's settings say."""
    convolve = CONVOLVE[weight.dim()]
    if mine.padding_mode == "zeros":
        return convolve(x, weight, bias, mine.stride, mine.padding, mine.dilation, mine.groups)
    x = functional.pad(x, around(mine), mode=mine.padding_mode)
    return convolve(x, weight, bias, mine.stride, 0, mine.dilation, mine.groups)
