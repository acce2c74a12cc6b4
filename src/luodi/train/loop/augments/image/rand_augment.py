"""RandAugment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from luodi.train.loop.augments.drawing.draw import a_row, between, chosen, where
from luodi.train.loop.augments.drawing.tones import autocontrasted, equalized, posterized, solarized
from luodi.train.loop.augments.image.affine import moved, origins_of
from luodi.train.loop.augments.image.colour import brightened, contrasted, hue_turned, saturated
from luodi.train.loop.augments.image.erase import erased
from luodi.train.loop.augments.image.noise import noisy
from luodi.train.loop.slots import Augment

if TYPE_CHECKING:
    from torch import Generator, Tensor

Operation = Literal[
    "nothing", "turn", "lean", "right", "down", "size",
    "brightness", "contrast", "autocontrast", "equalize", "posterize", "solarize", "saturation", "hue",
    "noise", "erase",
]  # fmt: skip
MOST = 30.0  # the end of the scale of magnitudes, as in the paper
# What an operation does at the end of the scale; the sign is drawn.
TURN, LEAN, SHIFT, SIZE, BRIGHT, FACTOR, HUE, NOISE, SIDE = 30.0, 16.7, 0.45, 1.5, 1.0, 2.5, 90.0, 0.5, 0.5
BITS, CUT = 4, 0.1
COLOURS = ("saturation", "hue")  # of three channels alone


class RandAugment(Augment):
    """A few operations on each image, drawn from a list and all of one strength (arXiv 1909.13719).

    Two numbers instead of a setting for each operation. At magnitude 30 it turns by 30 degrees, shears by 16.7, shifts
    by 0.45 of a side, scales 1.5 times, brightens by the image's own spread, changes contrast and saturation 2.5 times,
    turns the hue by 90 degrees, adds noise of half the spread, erases a rectangle of half the sides (the channels'
    means), takes 4 of 8 bits (posterize), makes a negative of all (solarize: of the lightest part), or stretches
    tones until a tenth of the pixels is cut off at each end (autocontrast); equalize has no strength. A channel's own
    darkest and lightest value count as black and white. Gray images are spared saturation and hue. Other operations are
    those of `affine`, `colour`, `noise` and `erase`; each image takes four draws an operation.
    """

    operations: Annotated[int, Field(ge=1, le=16)] = 2  # one after the other, on each image
    magnitude: Annotated[float, Field(ge=0, le=MOST)] = 9.0
    among: tuple[Operation, ...] = (
        "nothing", "turn", "lean", "right", "down", "size", "brightness", "contrast", "autocontrast", "equalize",
        "posterize", "solarize", "saturation", "hue", "noise", "erase",
    )  # fmt: skip
    fill: Literal["border", "zero"] = "border"  # what comes in from outside: the nearest pixel, or 0 (after encoding)
    share: Annotated[float, Field(ge=0, le=1)] = 1.0  # of the images

    def apply(self, values: Tensor, generator: Generator) -> Tensor:
        """`values` (batch, channels, height, width), any float type."""
        mask = chosen(len(values), self.share, generator)
        among = [name for name in self.among if values.shape[1] == 3 or name not in COLOURS]
        if not mask.any() or not among:
            return values
        changed = values
        for _ in range(self.operations):
            changed = self._one(changed, among, generator)
        return where(mask, changed, values)

    def _one(self, values: Tensor, among: list[Operation], generator: Generator) -> Tensor:
        """One operation on each image; the images of an operation are done together."""
        count, found = len(values), values.clone()
        which = (between(count, 0, len(among), generator)).long()
        sign = 1.0 - 2.0 * chosen(count, 0.5, generator)
        place = between(2 * count, 0, 1, generator).reshape(2, count)
        for at, name in enumerate(among):
            rows = (which == at).nonzero().flatten()
            if len(rows) and name != "nothing":
                there = rows.to(values.device)
                strength = sign[rows].double() * (self.magnitude / MOST)
                found[there] = self._done(name, values[there], strength, place[:, rows], generator)
        return found

    def _done(self, name: Operation, values: Tensor, strength: Tensor, place: Tensor, generator: Generator) -> Tensor:
        """`strength` float64 (batch,) from -1 to 1, `place` (2, batch) from 0 to 1."""
        match name:
            case "brightness":
                return brightened(values, BRIGHT * strength)
            case "contrast":
                return contrasted(values, FACTOR**strength)
            case "saturation":
                return saturated(values, FACTOR**strength)
            case "hue":
                return hue_turned(values, HUE * strength)
            case "noise":
                return noisy(values, a_row(NOISE * strength.abs(), values), generator)
            case "erase":
                return erased(values, _square(values, SIDE * strength.abs(), place), "mean", generator)
            case "autocontrast":
                return autocontrasted(values, CUT * strength.abs())
            case "equalize":
                return equalized(values)
            case "posterize":
                return posterized(values, 8 - (BITS * strength.abs()).round())
            case "solarize":
                return solarized(values, 256 * (1 - strength.abs()))
        return self._moved(name, values, strength)

    def _moved(self, name: Operation, values: Tensor, strength: Tensor) -> Tensor:
        none = strength * 0
        angle, lean = TURN * strength if name == "turn" else none, LEAN * strength if name == "lean" else none
        right, down = (SHIFT * strength if name == way else none for way in ("right", "down"))
        size = SIZE**strength if name == "size" else none + 1
        origins = origins_of(angle, lean, size, right, down, values.shape[-2] / values.shape[-1])
        return moved(values, origins.to(values), self.fill)


def _square(values: Tensor, side: Tensor, place: Tensor) -> Tensor:
    """int64 (4, batch): a rectangle of `side` (batch,) in shares of height and width, at a random place."""
    import torch

    (height, width), (down, right) = values.shape[-2:], place
    tall, wide = (side * height).round(), (side * width).round()
    return torch.stack([down * (height - tall + 1), right * (width - wide + 1), tall, wide]).long()
