"""Mixup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.train.loop.augments.drawing.draw import a_row, beta, chosen, where
from luodi.train.loop.slots import Blend

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Mixup(Blend):
    """Blends each image with another of its batch, and their losses in the same shares (arXiv 1710.09412).

    The share that an image keeps is from Beta(alpha, alpha), drawn for each image; the paper draws it for each batch.
    """

    alpha: Annotated[float, Field(gt=0, le=100)] = 0.2  # small: most blends are nearly one image; 1: every share alike
    share: Annotated[float, Field(ge=0, le=1)] = 1.0  # of the images

    def blend(self, values: Tensor, partners: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """`values` (batch, ...), any float type."""
        own = beta(len(values), self.alpha, generator)
        mask = chosen(len(values), self.share, generator)
        kept = a_row(own, values)
        own = own.where(mask, 1.0).to(values.device, values.dtype)
        return where(mask, values * kept + partners * (1 - kept), values), own
