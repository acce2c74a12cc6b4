"""Random rotation, shift, scale and shear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from luodi.train.loop.augments.drawing.draw import chosen, where
from luodi.train.loop.slots import Augment

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Affine(Augment):
    """Turns, shifts, scales and shears each image at random, all in one bilinear resampling of the batch.

    Every range is uniform and symmetric: `degrees: 10` turns by -10 to 10, counter-clockwise as seen. Ranges of 0 leave
    images as they are, bit for bit. Each image takes six draws, so equal keys give equal bits.
    """

    degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    shift: Annotated[float, Field(ge=0, le=1)] = 0.1  # share of the width and of the height
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.15  # 0.15: sizes from 1 / 1.15 to 1.15
    shear: Annotated[float, Field(ge=0, lt=60)] = 10.0  # degrees
    fill: Literal["border", "zero"] = "border"  # what comes in from outside: the nearest pixel, or 0 (after encoding)
    share: Annotated[float, Field(ge=0, le=1)] = 1.0  # of the images

    def apply(self, values: Tensor, generator: Generator) -> Tensor:
        """`values` (batch, channels, height, width), any float type."""
        import torch

        if not (self.degrees or self.shift or self.scale or self.shear):
            return values
        draws = torch.rand(5, len(values), generator=generator, dtype=torch.float64) * 2 - 1
        angle, lean = draws[0] * self.degrees, draws[1] * self.shear
        size, right, down = (1 + self.scale) ** draws[2], draws[3] * self.shift, draws[4] * self.shift
        origins = origins_of(angle, lean, size, right, down, values.shape[-2] / values.shape[-1])
        mask = chosen(len(values), self.share, generator)
        return where(mask, moved(values, origins.to(values), self.fill), values)


def origins_of(angle: Tensor, lean: Tensor, size: Tensor, right: Tensor, down: Tensor, aspect: float) -> Tensor:
    """(batch, 2, 3): where each pixel of the result comes from, in half sizes from the centre.

    `angle` and `lean` in degrees, `right` and `down` in shares of width and height, `aspect` height over width.
    """
    import torch

    # Pixels are turned in pixel units: half widths and half heights would squash a wide image as it turns.
    cosine, sine, slant = (angle.deg2rad().cos() / size, angle.deg2rad().sin() / size, lean.deg2rad().tan())
    xx, xy, yx, yy = cosine, (cosine * slant - sine) * aspect, sine / aspect, sine * slant + cosine
    rows = (xx, xy, -2 * (xx * right + xy * down), yx, yy, -2 * (yx * right + yy * down))
    return torch.stack(rows, dim=-1).reshape(-1, 2, 3)


def moved(values: Tensor, origins: Tensor, fill: Literal["border", "zero"]) -> Tensor:
    """One bilinear resampling of the whole batch."""
    from torch.nn.functional import affine_grid, grid_sample

    grid = affine_grid(origins, list(values.shape), align_corners=False)
    outside = "border" if fill == "border" else "zeros"
    return grid_sample(values, grid, mode="bilinear", padding_mode=outside, align_corners=False)
