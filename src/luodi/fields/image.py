"""An image column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field as Bounded
from pydantic import field_validator, model_validator

from luodi.core.errors import LuodiError
from luodi.core.field import Field
from luodi.core.spec import Arrays, Spec
from luodi.core.thing import Json
from luodi.fields.pictures.frame import cut, framed
from luodi.fields.pictures.made import made
from luodi.fields.pictures.wire import text_of, value_of

Side = Annotated[int, Bounded(ge=1, le=16384)]


class Image(Field):
    """Pictures of any size and mode, brought to one size and normalised.

    A value is uint8 (height, width) or (height, width, 3 or 4). Encoded: float32 (batch, channels, height, width).
    `standard` takes the mean and deviation of each channel from the training split, on the scale 0..1.
    """

    kind: ClassVar[str] = "image"

    size: Side | tuple[Side, Side] = 224  # pixels: a square's side, or height and width
    channels: Literal[1, 3] = 3  # 1: gray, 3: red, green, blue
    normalize: Literal["none", "scale", "symmetric", "standard"] = "standard"  # none: 0..255, scale: 0..1, -1..1
    resize: Literal["nearest", "area", "bilinear", "bicubic", "lanczos"] = "bilinear"
    aspect: Literal["stretch", "pad", "crop"] = "stretch"  # what happens to another ratio of height to width
    resize_to: Side | tuple[Side, Side] | None = None  # first to this (a number: the shorter side), then cut to size
    background: Annotated[int, Bounded(ge=0, le=255)] | None = (
        255  # shows through alpha and around; None: alpha is left
    )
    order: Literal["rgb", "bgr"] = "rgb"  # of the three channels that the model is given
    max_pixels: Annotated[int, Bounded(ge=1)] = 40_000_000  # refused before decoding above this
    mean: tuple[float, ...] | None = None  # of each channel, 0..1
    std: tuple[float, ...] | None = None  # of each channel, 0..1

    @field_validator("mean", "std")
    @classmethod
    def _one_a_channel(cls, given: tuple[float, ...] | None, info: Any) -> tuple[float, ...] | None:
        channels = info.data.get("channels")
        if given is not None and channels is not None and len(given) != channels:
            raise ValueError(f"one number a channel: {channels}, got {len(given)}")
        if info.field_name == "std" and given is not None and min(given) <= 0:
            raise ValueError("must be above 0")
        return given

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.resize_to is not None and self.aspect != "stretch":
            raise ValueError("`resize_to` says what happens to other ratios: leave `aspect` at stretch")
        if self.order == "bgr" and self.channels == 1:
            raise ValueError("`order: bgr` needs `channels: 3`")
        return self

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    def fit(self, column: Iterable[Any]) -> Self:
        if self.normalize != "standard" or (self.mean and self.std):
            return self
        # Whole numbers: the sums are exact, so neither order nor chunks change the result.
        total, squares, count = np.zeros(self.channels, np.int64), np.zeros(self.channels, np.int64), 0
        for cell in column:
            pixels = self._frame(self.read(cell)).reshape(-1, self.channels).astype(np.int64)
            total, squares, count = total + pixels.sum(0), squares + (pixels**2).sum(0), count + len(pixels)
        if not count:
            raise LuodiError("an image field is fitted on training rows, and there are none")
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 0.0)) / 255
        deviation[deviation < 1e-6] = 1.0  # a constant channel becomes 0, not infinite
        found = {"mean": tuple((mean / 255).tolist()), "std": tuple(deviation.tolist())}
        return self.model_copy(update={name: found[name] for name in found if getattr(self, name) is None})

    def specs(self) -> dict[str, Spec]:
        return {"": Spec(kind="image", shape=(self.channels, *self.sides), size=self.channels)}

    def read(self, wire: Json | bytes) -> np.ndarray:
        return value_of(wire, self.max_pixels)

    def write(self, value: Any) -> Json:
        return text_of(value)

    def encode(self, values: Sequence[Any]) -> Arrays:
        pixels = np.empty((len(values), *self.sides, self.channels), np.uint8)
        for index, value in enumerate(values):
            pixels[index] = self._frame(value)
        # Turned while they are bytes: whole planes are then changed along their memory.
        planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32)
        # In the order and precision of other libraries, so that a model made elsewhere is given the same bits.
        if self.normalize != "none":
            planes /= 255
        if self.normalize == "symmetric":
            planes -= np.float32(0.5)
            planes /= np.float32(0.5)
        if self.normalize == "standard":
            assert self.mean and self.std, "an image field is fitted before it encodes"
            planes -= np.asarray(self.mean, np.float32)[:, None, None]
            planes /= np.asarray(self.std, np.float32)[:, None, None]
        return {"": planes}

    def example(self, count: int, seed: int) -> list[np.ndarray]:
        return made(count, seed, self.sides)

    def wire_schema(self) -> dict[str, Json]:
        row = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 255}}
        pixels = "Nested lists of whole numbers 0..255: (height, width), gray."
        return {
            "description": f"An image of any size (it becomes {self.sides[1]} x {self.sides[0]}, "
            f"{'gray' if self.channels == 1 else 'colour'}): base64 of an image file, a data URL, or nested lists.",
            "anyOf": [
                {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png", "minLength": 1},
                {"type": "array", "minItems": 1, "items": row, "description": pixels},
            ],
            "examples": [text_of(np.zeros((2, 2), np.uint8))],
        }

    def _frame(self, value: np.ndarray) -> np.ndarray:
        """uint8 (height, width, channels)."""
        if self.resize_to is None and value.shape == (self.sides if self.channels == 1 else (*self.sides, 3)):
            pixels = value.reshape(*self.sides, self.channels)
        elif self.resize_to is None:
            pixels = framed(value, self.sides, self.channels, self.resize, self.aspect, self.background)
        else:
            pixels = cut(value, self.resize_to, self.sides, self.channels, self.resize, self.background)
        return pixels if self.order == "rgb" else pixels[:, :, ::-1]
