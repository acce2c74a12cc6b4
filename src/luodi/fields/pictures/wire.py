"""Image files, base64, nested lists and arrays become one value: uint8 (height, width) or (height, width, 3 or 4)."""

from __future__ import annotations

import base64
import binascii
import io
import struct
from typing import Any

import numpy as np

from luodi.core.errors import BadRequest

# What Pillow may open. Formats that start other programs (EPS) or hold documents are left out on purpose.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
EXPECTED = (
    "expected an image: the bytes of a PNG, JPEG, GIF, BMP, WebP, TIFF or PPM file, the same as base64 or as a "
    "data URL, or nested lists of whole numbers 0..255 of shape (height, width) or (height, width, 3 or 4)"
)


def value_of(wire: Any, max_pixels: int) -> np.ndarray:
    """The image behind any wire form; raises BadRequest("", ...) that says what is expected."""
    if isinstance(wire, np.ndarray):
        return _from_array(wire, max_pixels)
    if isinstance(wire, bytes | bytearray | memoryview):
        return _from_file(bytes(wire), max_pixels)
    if isinstance(wire, str):
        return _from_file(_unbase64(wire), max_pixels)
    if isinstance(wire, list | tuple):
        return _from_array(_array(wire), max_pixels)
    raise BadRequest("", f"{EXPECTED}; got {'nothing' if wire is None else type(wire).__name__}")


def text_of(value: np.ndarray) -> str:
    """The value as a base64 PNG: lossless, so that `value_of` gives the same array back."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(value).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _unbase64(text: str) -> bytes:
    head, comma, tail = text.partition(",")
    if head.lstrip()[:5].lower() == "data:":
        if not comma or not head.rstrip().lower().endswith(";base64"):
            raise BadRequest("", f"a data URL must read data:image/png;base64,...; got {text[:40]!r}")
        text = tail
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest("", f"text must be the base64 of an image file ({error}); got {text[:40]!r}") from error


def _array(nested: list[Any] | tuple[Any, ...]) -> np.ndarray:
    try:
        return np.asarray(nested)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadRequest("", "nested lists must be a rectangle: every row of one length") from error


def _from_array(array: np.ndarray, max_pixels: int) -> np.ndarray:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise BadRequest("", f"the shape must be (height, width) or (height, width, 3 or 4), got {array.shape}")
    _check_size(array.shape[1], array.shape[0], max_pixels)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise BadRequest("", f"pixels must be whole numbers 0..255, got {array.dtype}")
    # Fractions are refused rather than guessed to be 0..1: one picture would else be read at two brightnesses.
    with np.errstate(invalid="ignore"):
        whole = np.isfinite(array) & (array >= 0) & (array <= 255) & (array == np.trunc(array))
    if not whole.all():
        raise BadRequest("", f"pixels must be whole numbers 0..255, got {array[~whole].flat[0]}")
    return array.astype(np.uint8)


def _from_file(data: bytes, max_pixels: int) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise BadRequest("", f"{EXPECTED}; got no bytes")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(*image.size, max_pixels)  # before any pixel is decoded
            image.load()
            # The camera's rotation is side information; most small files have none, and looking for it costs.
            if image.info or image.format == "TIFF":
                ImageOps.exif_transpose(image, in_place=True)
            return _pixels(image)
    except UnidentifiedImageError as error:
        raise BadRequest("", f"{EXPECTED}; got {len(data)} bytes that are no image") from error
    except Image.DecompressionBombError as error:
        raise BadRequest("", f"the image may have at most {max_pixels} pixels ({error})") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, MemoryError, OverflowError) as error:
        raise BadRequest("", f"the image file is cut off or damaged ({error})") from error


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise BadRequest("", f"the image may have at most {max_pixels} pixels, got {width} x {height}")


def _pixels(image: Any) -> np.ndarray:
    """Any Pillow mode as uint8 gray, RGB or RGBA."""
    if image.mode.startswith("I"):  # 16 bits, in files that Pillow also opens as 32
        return (np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8).astype(np.uint8)
    if image.mode == "F":
        raise BadRequest("", "an image of floating-point pixels has no stated range; save it with 8 or 16 bits")
    if image.mode in ("LA", "La", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB", "RGBA"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return np.array(image, dtype=np.uint8)
