"""Random rotation, shift, scale and shear."""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from luodi.train.loop.slots import Augment

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Affine(Augment):
    """Turns, shifts, scales and shears each image at random, all in one bilinear resampling of the batch.

    Every range is uniform and symmetric: `degrees: 10` turns by -10 to 10, counter-clockwise as seen. Ranges of 0 leave
    images as they are, bit for bit. Each image takes five draws, so equal keys give equal bits.
    """

    degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    shift: Annotated[float, Field(ge=0, le=1)] = 0.07  # share of the width and of the height
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1  # 0.1: sizes from 1 / 1.1 to 1.1
    shear: Annotated[float, Field(ge=0, lt=60)] = 0.0  # degrees
    fill: Literal["border", "zero"] = "border"  # what comes in from outside: the nearest pixel, or 0 (after encoding)

    def apply(self, values: Tensor, generator: Generator) -> Tensor:
        """`values` (batch, channels, height, width), any float type."""
        from torch.nn.functional import affine_grid, grid_sample

        if not (self.degrees or self.shift or self.scale or self.shear):
            return values
        theta = self._matrices(len(values), values.shape[-2], values.shape[-1], generator).to(values)
        grid = affine_grid(theta, list(values.shape), align_corners=False)
        outside = "border" if self.fill == "border" else "zeros"
        return grid_sample(values, grid, mode="bilinear", padding_mode=outside, align_corners=False)

    def _matrices(self, count: int, height: int, width: int, generator: Generator) -> Tensor:
        """(batch, 2, 3): where each output pixel comes from, in half sizes: the inverse of the change."""
        import torch

        draws = torch.rand(count, 5, generator=generator, dtype=torch.float64) * 2 - 1
        angle, lean = draws[:, 0] * (self.degrees * pi / 180), torch.tan(draws[:, 1] * (self.shear * pi / 180))
        size = (1 + self.scale) ** -draws[:, 2]
        right, down = draws[:, 3] * 2 * self.shift, draws[:, 4] * 2 * self.shift
        # Pixels are turned in pixel units: half-width and half-height units would squash a wide image as it turns.
        cosine, sine, aspect = angle.cos() * size, angle.sin() * size, height / width
        xx, xy, yx, yy = cosine, (cosine * lean - sine) * aspect, sine / aspect, sine * lean + cosine
        rows = (xx, xy, -(xx * right + xy * down), yx, yy, -(yx * right + yy * down))
        return torch.stack(rows, dim=-1).reshape(count, 2, 3)
