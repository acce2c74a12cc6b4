"""A layer's weight as matrices: a row an output, a column an input that the output sees."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

# Axes: P parts (the groups of a convolution, else 1), R outputs of a part, C inputs of an output.


def matrix_of(layer: nn.Module, weight: Tensor) -> Tensor:
    """(P, R, C): channels before places of the kernel, as they lie in memory.

    A transposed convolution multiplies each input and then lays the products over each other: a row is one product.
    """
    parts = getattr(layer, "groups", 1)
    flat = weight.reshape(parts, weight.shape[0] // parts, -1)
    return flat.transpose(1, 2) if getattr(layer, "transposed", False) else flat


def weight_of(layer: nn.Module, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What `matrix_of` was made from."""
    return (matrix.transpose(1, 2) if getattr(layer, "transposed", False) else matrix).reshape(shape)


def places_of(layer: nn.Module, weight: Tensor) -> int:
    """Columns of one input channel: the places of a kernel."""
    return 1 if getattr(layer, "transposed", False) else prod(weight.shape[2:])


def seen_columns(layer: Any, x: Tensor) -> Tensor:
    """What a layer is given, as (P, N, C): every row of it is multiplied by every row of the layer's matrix."""
    from torch import nn

    if isinstance(layer, nn.Linear):
        return x.reshape(1, -1, x.shape[-1])
    size = len(layer.kernel_size)
    if x.dim() == size + 1:  # one example without its batch
        x = x[None]
    if not layer.transposed:
        x = _patches(layer, x)
    channels_last = x.movedim(1, size + 1)  # (B, places..., channels, kernel...)
    parts = channels_last.reshape(prod(channels_last.shape[: size + 1]), layer.groups, -1)
    return parts.transpose(0, 1)


def _patches(layer: Any, x: Tensor) -> Tensor:
    """(B, channels, places..., kernel...): what the kernel covers at each place."""
    from torch.nn import functional

    from luodi.models.layers.around import around

    sides = around(layer)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    if any(sides):
        x = functional.pad(x, sides, mode=mode)
    for axis, (size, step, apart) in enumerate(
        zip(layer.kernel_size, layer.stride, layer.dilation, strict=True), start=2
    ):
        x = x.unfold(axis, (size - 1) * apart + 1, step)[..., ::apart]
    return x
