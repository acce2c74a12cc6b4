"""Random erasing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from luodi.train.loop.augments.drawing.draw import between, chosen, normal_like
from luodi.train.loop.slots import Augment

if TYPE_CHECKING:
    from torch import Generator, Tensor

Fill = Literal["noise", "mean", "zero"]


class Erase(Augment):
    """Fills a random rectangle of a share of the images (arXiv 1708.04896).

    Area and ratio are those of the paper; a side that would be longer than the image's is cut to it, where the paper
    draws again. Each image takes five draws, and noise for every pixel.
    """

    share: Annotated[float, Field(ge=0, le=1)] = 0.5  # of the images
    area: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (0.02, 0.4)  # of the image
    ratio: Annotated[float, Field(ge=1, le=100)] = 3.3333  # 3.3333: heights from 1 / 3.3333 to 3.3333 widths
    fill: Fill = "noise"  # noise: with each channel's own mean and deviation; mean: of each channel; zero: 0, encoded

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if self.area[0] > self.area[1]:
            raise ValueError(f"`area` goes from {self.area[0]} to {self.area[1]}: the lower one comes first")
        return self

    def apply(self, values: Tensor, generator: Generator) -> Tensor:
        """`values` (batch, channels, height, width), any float type."""
        import torch

        count, (height, width) = len(values), values.shape[-2:]
        area, top, left = between(count, *self.area, generator), *(between(count, 0, 1, generator) for _ in range(2))
        ratio = self.ratio ** between(count, -1, 1, generator)
        mask = chosen(count, self.share, generator)
        if not mask.any():
            return values
        tall = (area * height * width * ratio).sqrt().round().clamp(1, height)
        wide = (area * height * width / ratio).sqrt().round().clamp(1, width)
        box = torch.stack([top * (height - tall + 1), left * (width - wide + 1), tall, wide]).long()
        return erased(values, box * mask, self.fill, generator)


def erased(values: Tensor, box: Tensor, fill: Fill, generator: Generator) -> Tensor:
    """Each image with its rectangle filled; `box` int64 (4, batch): top, left, height, width."""
    import torch

    inside = within(values, box)
    if fill == "zero":
        return values.masked_fill(inside, 0)
    mean = values.mean((2, 3), keepdim=True)
    if fill == "mean":
        return torch.where(inside, mean, values)
    new = mean + normal_like(values, generator) * values.std((2, 3), correction=0, keepdim=True)
    return torch.where(inside, new, values)


def within(values: Tensor, box: Tensor) -> Tensor:
    """bool (batch, 1, height, width): the pixels of each image's rectangle; `box` as above."""
    import torch

    rows = torch.arange(values.shape[-2], device=values.device)[:, None]
    columns = torch.arange(values.shape[-1], device=values.device)
    top, left, tall, wide = (side.to(values.device).reshape(-1, 1, 1, 1) for side in box)
    return (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)
