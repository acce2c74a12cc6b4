"""One image value to one size and number of channels: alpha, resize, aspect ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling

# Our word -> the name in Pillow, whose filters are antialiased when they shrink.
FILTERS = {"nearest": "NEAREST", "area": "BOX", "bilinear": "BILINEAR", "bicubic": "BICUBIC", "lanczos": "LANCZOS"}


def framed(
    value: np.ndarray, size: tuple[int, int], channels: int, resize: str, aspect: str, background: int
) -> np.ndarray:
    """uint8 (height, width, channels) of that size; alpha is laid over the background first."""
    from PIL.Image import Resampling, alpha_composite, fromarray, new

    mode = "L" if channels == 1 else "RGB"
    image = fromarray(value)
    if image.mode == "RGBA":
        under = new("RGBA", image.size, (background, background, background, 255))
        image = alpha_composite(under, image)
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != (size[1], size[0]):
        image = _resized(image, size, Resampling[FILTERS[resize]], aspect, background)
    return np.asarray(image).reshape(*size, channels)


def _resized(image: Image, size: tuple[int, int], kind: Resampling, aspect: str, background: int) -> Image:
    from PIL.Image import new

    height, width = size
    if aspect == "stretch":
        return image.resize((width, height), kind)
    across, down = width / image.width, height / image.height
    ratio = min(across, down) if aspect == "pad" else max(across, down)
    if aspect == "pad":
        inner = (_at_least_one(image.width * ratio, width), _at_least_one(image.height * ratio, height))
        padded = new(image.mode, (width, height), background if image.mode == "L" else (background,) * 3)
        padded.paste(image.resize(inner, kind), ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return padded
    # The middle part that has the wanted aspect ratio; Pillow takes a box in fractions of a pixel.
    part = (width / ratio, height / ratio)
    left, top = (image.width - part[0]) / 2, (image.height - part[1]) / 2
    box = (max(left, 0.0), max(top, 0.0), min(left + part[0], image.width), min(top + part[1], image.height))
    return image.resize((width, height), kind, box=box)


def _at_least_one(length: float, most: int) -> int:
    return min(max(round(length), 1), most)
