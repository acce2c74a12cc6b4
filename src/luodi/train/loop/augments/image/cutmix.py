"""CutMix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.train.loop.augments.drawing.draw import beta, between, chosen
from luodi.train.loop.augments.image.erase import within
from luodi.train.loop.slots import Blend

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Cutmix(Blend):
    """Puts a rectangle of another image of the batch into each one; losses in the shares of area (arXiv 1905.04899).

    The rectangle has the image's ratio, and an area whose share is from Beta(alpha, alpha), drawn for each image; what
    lies beyond the border is cut off, and the share is that of the pixels that are left.
    """

    alpha: Annotated[float, Field(gt=0, le=100)] = 1.0  # 1: every share of area alike
    share: Annotated[float, Field(ge=0, le=1)] = 1.0  # of the images

    def blend(self, values: Tensor, partners: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """`values` (batch, channels, height, width)."""
        import torch

        count, (height, width) = len(values), values.shape[-2:]
        side = (1 - beta(count, self.alpha, generator)).sqrt() * chosen(count, self.share, generator)
        tall, wide = (side * height).long(), (side * width).long()
        top = (between(count, 0, height, generator)).long() - tall // 2
        left = (between(count, 0, width, generator)).long() - wide // 2
        inside = within(values, torch.stack([top, left, tall, wide]))
        own = 1 - inside.to(torch.float64).mean((1, 2, 3))
        return torch.where(inside, partners, values), own.to(values.dtype)
