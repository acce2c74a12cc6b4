"""One image value to one size and number of channels: alpha, resize, aspect ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling

# Our word -> the name in Pillow, whose filters are antialiased when they shrink.
FILTERS = {"nearest": "NEAREST", "area": "BOX", "bilinear": "BILINEAR", "bicubic": "BICUBIC", "lanczos": "LANCZOS"}


def framed(
    value: np.ndarray, size: tuple[int, int], channels: int, resize: str, aspect: str, background: int | None
) -> np.ndarray:
    """uint8 (height, width, channels) of that size; alpha is laid over the background first, or left off (None)."""
    from PIL.Image import Resampling

    image = _opaque(value, channels, background)
    if image.size != (size[1], size[0]):
        image = _resized(image, size, Resampling[FILTERS[resize]], aspect, background or 0)
    return np.asarray(image).reshape(*size, channels)


def cut(
    value: np.ndarray, resize_to: int | tuple[int, int], size: tuple[int, int], channels: int, resize: str,
    background: int | None,
) -> np.ndarray:  # fmt: skip
    """uint8 (height, width, channels): resized to `resize_to`, then the middle of that size cut out whole pixels wide.

    A number is the new shorter side, the longer one is rounded down. Where the resized image is smaller, the background
    (black if None) is around it, its odd pixel before the image.
    """
    from PIL.Image import Resampling, new

    image = _opaque(value, channels, background)
    across, down = image.size
    if isinstance(resize_to, tuple):
        down, across = resize_to
    else:
        shorter, longer = min(across, down), max(across, down)
        other = int(resize_to * longer / shorter)
        across, down = (resize_to, other) if across <= down else (other, resize_to)
    image = image.resize((across, down), Resampling[FILTERS[resize]])
    height, width = size
    canvas = new(image.mode, (width, height), (background or 0) if channels == 1 else (background or 0,) * 3)
    canvas.paste(image, (-((across - width) // 2), -((down - height) // 2)))
    return np.asarray(canvas).reshape(*size, channels)


def _opaque(value: np.ndarray, channels: int, background: int | None) -> Image:
    """The image in its final mode, L or RGB."""
    from PIL.Image import alpha_composite, fromarray, new

    mode = "L" if channels == 1 else "RGB"
    image = fromarray(value)
    if image.mode == "RGBA" and background is not None:
        image = alpha_composite(new("RGBA", image.size, (background, background, background, 255)), image)
    return image if image.mode == mode else image.convert(mode)


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
