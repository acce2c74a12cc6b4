"""Pictures that are nearly the same: perceptual hashes find candidates, the frequencies behind them decide.

Shapes: N pictures; `waves` (N, 63) float32, the lowest frequencies of the cosine transform of a 32 x 32 grey thumbnail,
without the mean; `means` (N,) float32 on the scale 0..255; hashes (N,) uint64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING

import numpy as np

from luodi.data.likeness.pairs import close_pairs

if TYPE_CHECKING:
    from PIL import Image

SIDE = 32  # pixels of a thumbnail's side
LOW = 8  # lowest frequencies of each axis
REDUCED = 192  # pixels of a side from which on Pillow makes a picture smaller before it resizes it
PIXELS = 1 << 22  # of pictures that are resized together
MOST_BITS = 6  # of 63 that may differ for a second look
# Largest distance of two pictures' waves, each of length 1. On 500 pictures of clothes, copies as JPEG of quality 60
# and of twice the size lie at 0.02 to 0.06; of 12,000 different ones one in a thousand has a neighbour within 0.07.
MOST_OFF = 0.06
FLAT = 64.0  # length of the waves below which a picture is one shade: 2 grey levels of deviation
ROUNDING = 1.0  # of a wave: a thirtieth of a grey level, so that one shade has no bits
SHADE = 2.0  # grey levels that two flat pictures may differ by


@dataclass(frozen=True)
class Pictures:
    """Pictures of one column, small."""

    waves: np.ndarray
    means: np.ndarray
    hashes: np.ndarray

    @classmethod
    def of(cls, arrays: Iterable[np.ndarray]) -> Pictures:
        """From uint8 arrays (height, width) or (height, width, 3 or 4)."""
        whole = np.concatenate([np.zeros((0, LOW * LOW), np.float32), *map(lowest, thumbnails(arrays))])
        return cls(whole[:, 1:], whole[:, 0] / SIDE, perceptual_hashes(whole[:, 1:]))

    def pairs(self) -> np.ndarray:
        """(pairs, 2) int64 of pictures that are nearly the same, the smaller number first."""
        found = close_pairs(self.hashes, MOST_BITS)
        return found[self.alike(found)]

    def alike(self, pairs: np.ndarray) -> np.ndarray:
        """Which of these pairs are nearly the same; another brightness or contrast does not count."""
        lengths = np.linalg.norm(self.waves, axis=1)
        units = self.waves / np.maximum(lengths, FLAT)[:, None]
        chosen = np.zeros(len(pairs), bool)
        for start in range(0, len(pairs), 65536):
            one, other = pairs[start : start + 65536].T
            near = np.linalg.norm(units[one] - units[other], axis=1) <= MOST_OFF
            flat = (lengths[one] < FLAT) | (lengths[other] < FLAT)
            same_shade = np.abs(self.means[one] - self.means[other]) <= SHADE
            chosen[start : start + 65536] = near & (~flat | same_shade)
        return chosen


def thumbnails(arrays: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """(some, 32, 32) float32 grey, in order, as many at a time as are alike; what is transparent is white.

    Small squares of one size are resized together, one under the other, to the same bits; of others Pillow decides
    which axis comes first.
    """
    for shape, alike in groupby(arrays, key=lambda array: array.shape):
        many = PIXELS // (shape[0] * shape[1]) if shape[0] == shape[1] < REDUCED else 1
        while some := list(islice(alike, max(many, 1))):
            yield _together(np.stack(some)) if len(some) > 1 else thumbnail(some[0])[None]


def thumbnail(array: np.ndarray) -> np.ndarray:
    """(32, 32) float32 grey; what is transparent is white."""
    from PIL import Image

    return np.asarray(_grey(array).resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0), np.float32)


def _together(stack: np.ndarray) -> np.ndarray:
    """(count, 32, 32) of (count, height, width, ...): Pillow resizes along the rows, then along the columns."""
    from PIL import Image

    def narrowed(rows: Image.Image) -> np.ndarray:
        return np.asarray(rows.resize((SIDE, rows.height), Image.Resampling.BILINEAR))

    count, height = stack.shape[:2]
    across = narrowed(_grey(stack.reshape(-1, *stack.shape[2:]))).reshape(count, height, SIDE)
    turned = np.ascontiguousarray(across.transpose(0, 2, 1)).reshape(-1, height)
    down = narrowed(Image.fromarray(turned)).reshape(count, SIDE, SIDE)
    return np.ascontiguousarray(down.transpose(0, 2, 1), np.float32)


def _grey(array: np.ndarray) -> Image.Image:
    from PIL import Image

    if array.ndim == 3 and array.shape[2] == 4:
        share = array[:, :, 3:].astype(np.float32) / 255
        array = (array[:, :, :3] * share + 255 * (1 - share)).round().astype(np.uint8)
    return Image.fromarray(array).convert("L")


def lowest(small: np.ndarray) -> np.ndarray:
    """(count, 64): the 8 x 8 lowest frequencies of the orthonormal cosine transform (DCT-II) of thumbnails."""
    return (WAVES @ small @ WAVES.T).reshape(-1, LOW * LOW)


def _cosines() -> np.ndarray:
    places = np.arange(SIDE)[None]
    rows = np.cos(np.pi * (2 * places + 1) * np.arange(LOW)[:, None] / (2 * SIDE)) * np.sqrt(2 / SIDE)
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


WAVES = _cosines()


def perceptual_hashes(waves: np.ndarray) -> np.ndarray:
    """One uint64 a picture: which of its 63 waves lie above their median."""
    if not len(waves):
        return np.zeros(0, np.uint64)
    bits = waves > np.median(waves, axis=1, keepdims=True) + ROUNDING
    return (bits.astype(np.uint64) << np.arange(waves.shape[1], dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
