"""A linear or convolution layer as two thinner ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class LowRank(nn.Module):
    """`second(first(x))`: the first maps to `rank` numbers a place, the second from there to the outputs.

    Of a convolution the first has the kernel, stride, padding and dilation, the second is 1 x 1.
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    @classmethod
    def like(cls, layer: Any, rank: int) -> LowRank:
        """Two layers for this one's inputs and outputs, their weights not yet set."""
        kind, about = type(layer), {"device": layer.weight.device, "dtype": layer.weight.dtype}
        biased = layer.bias is not None
        if isinstance(layer, nn.Linear):
            first = nn.Linear(layer.in_features, rank, bias=False, **about)
            return cls(first, nn.Linear(rank, layer.out_features, bias=biased, **about))
        first = kind(
            layer.in_channels, rank, layer.kernel_size, layer.stride, layer.padding, layer.dilation, bias=False,
            padding_mode=layer.padding_mode, **about,
        )  # fmt: skip
        return cls(first, kind(rank, layer.out_channels, 1, bias=biased, **about))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))
