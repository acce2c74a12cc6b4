"""Layers with a low-rank change beside their frozen weight."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Variant = Literal["plain", "dora"]


class LowRank(nn.Module):
    """A linear or 2-d convolution layer `base`, frozen, plus scale x up x down (arXiv 2106.09685).

    With W the weight as (out, rest): `down` (rank, rest) and `up` (out, rank), which is zero at first, so the answers
    stay. `dora` (arXiv 2402.09353) learns the length of each output's weights apart: W' = magnitude x V / |V| with
    V = W + scale x up x down and magnitude (out,) the length of W's rows at first; |V| is taken as a constant.
    Dropout acts on what enters the low-rank path.
    """

    base: Any
    magnitude: Tensor | None

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, scale: float, dropout: float, variant: Variant) -> None:
        super().__init__()
        self.base, self.scale, self.rank = base, scale, rank
        flat = base.weight.flatten(1)
        self.linear = isinstance(base, nn.Linear)  # `base` may become another kind of layer, of int8 weights say
        self.down = nn.Parameter(torch.empty(rank, flat.shape[1], device=flat.device, dtype=flat.dtype))
        self.up = nn.Parameter(torch.zeros(len(flat), rank, device=flat.device, dtype=flat.dtype))
        magnitude = flat.detach().norm(dim=1) if variant == "dora" else None
        self.register_parameter("magnitude", None if magnitude is None else nn.Parameter(magnitude))
        self.dropout = nn.Dropout(dropout)

    def begin(self, generator: torch.Generator) -> LowRank:
        """Draws `down` as a linear layer's weight is drawn: uniform within one over the root of its width."""
        width = self.down.shape[1] ** -0.5
        drawn = torch.empty(self.down.shape).uniform_(-width, width, generator=generator)
        with torch.no_grad():
            self.down.copy_(drawn)
        return self

    def forward(self, x: Tensor) -> Tensor:
        bias = self.base.bias
        if self.magnitude is None:
            return self.base(x) + self.scale * self._low(x)
        factor = (self.magnitude / _lengths(self._whole().detach())).view(self._channels())
        plain = self.base(x) if bias is None else self.base(x) - bias.view(self._channels())
        changed = factor * (plain + self.scale * self._low(x))
        return changed if bias is None else changed + bias.view(self._channels())

    def merged(self) -> nn.Module:
        """The plain layer with the change added to its weight."""
        with torch.no_grad():
            whole = self._whole()
            if self.magnitude is not None:
                whole = whole * (self.magnitude / _lengths(whole))[:, None]
            self.base.weight.copy_(whole.view_as(self.base.weight))
        return self.base

    def _whole(self) -> Tensor:
        """(out, rest): the weight with the change."""
        return self.base.weight.flatten(1) + self.scale * self.up @ self.down

    def _channels(self) -> tuple[int, ...]:
        """The shape in which one number an output meets what the layer gives."""
        return (-1,) if self.linear else (-1, 1, 1)

    def _low(self, x: Tensor) -> Tensor:
        """What the change adds, before scaling."""
        x = self.dropout(x)
        if self.linear:
            return functional.linear(functional.linear(x, self.down), self.up)
        layer: Any = self.base
        ways = (layer.stride, layer.padding, layer.dilation)
        if layer.groups > 1:  # each output filters other channels: there is no narrow picture in between
            whole = (self.up @ self.down).unflatten(1, (-1, *layer.kernel_size))
            return functional.conv2d(x, whole, None, *ways, layer.groups)
        narrow = functional.conv2d(x, self.down.unflatten(1, (-1, *layer.kernel_size)), None, *ways)
        return functional.conv2d(narrow, self.up[:, :, None, None])


def _lengths(rows: Tensor) -> Tensor:
    """The length of each row; of rows of zeros, which pretrained filters may be, not quite zero."""
    return rows.norm(dim=1).clamp_min(1e-12)


class Still(nn.Module):
    """A layer whose running statistics do not move in training either."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def train(self, mode: bool = True) -> Still:
        super().train(mode)
        self.layer.eval()
        return self
