"""A linear layer that computes in int8: weights fixed, activations scaled row by row as they come."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from luodi.models.layers.int8_weight import int8_channels


class Int8DynamicLinear(nn.Module):
    """int8 weights (out, in) with scales (out,), and int8 activations with one scale a row: max / 127."""

    arithmetic = "int8"  # a rounding may flip on another processor: parity allows for it
    q: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        q, scale = int8_channels(layer.weight)
        self.register_buffer("q", q)
        self.register_buffer("scale", scale.flatten())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    @property
    def weight(self) -> Tensor:
        """The dequantised weight, for code that reads a layer's `weight`."""
        return self.q * self.scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        return dynamic_linear(x, self.q, self.scale, self.bias)


def dynamic_linear(x: Tensor, q: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """x (..., in) times q (out, in) int8 with scales (out,), plus bias: x is rounded row by row."""
    step = x.abs().amax(-1, keepdim=True).float().clamp(min=1e-8) / 127
    rows = (x / step).round().clamp(-128, 127).to(torch.int8).reshape(-1, q.shape[1])
    product = int_product(rows, q).reshape(*x.shape[:-1], q.shape[0])
    y = product.float() * step * scale
    return (y if bias is None else y + bias).to(x.dtype)


def int_product(rows: Tensor, q: Tensor) -> Tensor:
    """rows (n, in) int8 times q (out, in) int8 transposed, exactly, as int32 (n, out)."""
    if not rows.is_cuda:
        return torch._int_mm(rows, q.t())
    # CUDA wants more than 16 rows and widths that are multiples of 8: zeros change no sum.
    (num_rows, width), num_out = rows.shape, q.shape[0]
    rows = functional.pad(rows, (0, -width % 8, 0, max(0, 17 - num_rows)))
    q = functional.pad(q, (0, -width % 8, 0, -num_out % 8))
    return torch._int_mm(rows, q.t())[:num_rows, :num_out]
