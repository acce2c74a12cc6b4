"""Random crops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from luodi.train.loop.augments.drawing.draw import between, chosen, where
from luodi.train.loop.augments.image.affine import moved
from luodi.train.loop.slots import Augment

if TYPE_CHECKING:
    from torch import Generator, Tensor

Fill = Literal["zero", "border", "mirror"]


class Crop(Augment):
    """Cuts a random window out of each image; the size stays.

    `padded` puts a margin around and cuts the old size out of it, by whole pixels: every value is one that was there,
    or the fill. `resized` takes a window of random area and ratio (arXiv 1409.4842) that lies within the image, so
    nothing comes in at the border, and brings it to the old size by bilinear resampling. Each image takes five draws.
    """

    how: Literal["padded", "resized"] = "padded"
    margin: Annotated[float, Field(ge=0, le=1)] = 0.125  # padded: share of each side, 4 pixels of 32
    fill: Fill = "zero"  # padded, what the margin holds: 0 (after encoding), the nearest pixel, or the mirror image
    area: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (0.35, 1.0)  # resized
    ratio: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (
        0.75,
        1.3333,
    )  # resized: width / height
    share: Annotated[float, Field(ge=0, le=1)] = 1.0  # of the images

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name in ("area", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"`{name}` goes from {low} to {high}: the lower one comes first")
        return self

    def apply(self, values: Tensor, generator: Generator) -> Tensor:
        """`values` (batch, channels, height, width), any float type."""
        count = len(values)
        place = [between(count, 0, 1, generator) for _ in range(4)]
        mask = chosen(count, self.share, generator)
        if not mask.any():
            return values
        return where(
            mask, self._padded(values, place) if self.how == "padded" else self._resized(values, place), values
        )

    def _padded(self, values: Tensor, place: list[Tensor]) -> Tensor:
        margins = [round(self.margin * side) for side in values.shape[-2:]]
        down, right = ((at * (2 * most + 1)).long() - most for at, most in zip(place, margins, strict=False))
        return shifted(values, down, right, self.fill)

    def _resized(self, values: Tensor, place: list[Tensor]) -> Tensor:
        """The window's middle and half sizes as an affine reading of the image; a window is at most the image."""
        import torch

        area = self.area[0] + (self.area[1] - self.area[0]) * place[2]
        low, high = (torch.tensor(end).log() for end in self.ratio)
        ratio = (low + (high - low) * place[3]).exp() * (values.shape[-2] / values.shape[-1])  # in shares of the sides
        tall, wide = (area / ratio).sqrt().clamp(max=1), (area * ratio).sqrt().clamp(max=1)
        down, right = (2 * place[0] - 1) * (1 - tall), (2 * place[1] - 1) * (1 - wide)
        none = torch.zeros_like(tall)
        origins = torch.stack([wide, none, right, none, tall, down], dim=-1).reshape(-1, 2, 3)
        return moved(values, origins.to(values), "border")


def shifted(values: Tensor, down: Tensor, right: Tensor, fill: Fill) -> Tensor:
    """Each image read `down` and `right` pixels further on: int64 (batch,) each. No value is computed, only moved."""
    import torch

    rows, outside_rows = _read(values.shape[-2], down, fill)
    columns, outside_columns = _read(values.shape[-1], right, fill)
    rows, columns = rows.to(values.device), columns.to(values.device)
    batch = torch.arange(len(values), device=values.device)
    found = values[batch[:, None, None], :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
    if fill != "zero":
        return found.contiguous()
    outside = (outside_rows[:, :, None] | outside_columns[:, None, :]).to(values.device)
    return found.masked_fill(outside[:, None], 0).contiguous()


def _read(side: int, offset: Tensor, fill: Fill) -> tuple[Tensor, Tensor]:
    """(batch, side): which pixel each one reads, and whether it lies outside."""
    import torch

    at = torch.arange(side) + offset[:, None]
    outside = (at < 0) | (at >= side)
    if fill == "mirror" and side > 1:  # the edge itself is not doubled
        at = at % (2 * side - 2)
        at = torch.where(at >= side, 2 * side - 2 - at, at)
    return at.clamp(0, side - 1), outside
