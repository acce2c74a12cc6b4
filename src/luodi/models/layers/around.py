"""What a convolution puts around its picture."""

from __future__ import annotations

from typing import Any


def around(layer: Any) -> list[int]:
    """Padding before and after each axis, the last axis first, as `functional.pad` wants it."""
    sides: list[int] = []
    for axis in reversed(range(len(layer.kernel_size))):
        if isinstance(layer.padding, str):  # "same" pads the odd one behind; "valid" not at all
            total = layer.dilation[axis] * (layer.kernel_size[axis] - 1) if layer.padding == "same" else 0
            sides += [total // 2, total - total // 2]
        else:
            sides += [layer.padding[axis], layer.padding[axis]]
    return sides
