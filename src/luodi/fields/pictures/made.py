"""Made-up images that cover a field: several sizes, gray, colour and alpha; noise, gradients, blobs, strokes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

KINDS = ("strokes", "blobs", "gradient", "noise")
DEPTHS = (0, 3, 4)  # 0: gray without a channel axis


def made(count: int, seed: int, size: tuple[int, int]) -> list[np.ndarray]:
    """`count` uint8 values from the seed alone; the first one has the field's own size."""
    dice = np.random.Generator(np.random.PCG64(seed))
    return [_one(dice, index, size) for index in range(count)]


def _one(dice: np.random.Generator, index: int, size: tuple[int, int]) -> np.ndarray:
    # Steps of different length through kinds, depths and sizes, so that 12 examples hold every pair of kind and depth.
    kind, depth = KINDS[index % 4], DEPTHS[index % 3]
    down, across = ((1.0, 1.0), (2.0, 2.0), (0.5, 0.5), (1.6, 0.8), (0.7, 2.1))[index % 5]
    height, width = max(round(size[0] * down), 2), max(round(size[1] * across), 2)
    planes = [_plane(dice, kind, height, width) for _ in range(max(depth, 1))]
    stacked = np.stack(planes, axis=-1)
    return stacked if depth else stacked[:, :, 0]


def _plane(dice: np.random.Generator, kind: str, height: int, width: int) -> np.ndarray:
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    if kind == "noise":
        return dice.integers(0, 256, (height, width), dtype=np.uint8)
    if kind == "gradient":
        angle = dice.uniform(0, 2 * np.pi)
        slope = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)
        return _bytes((slope + 0.75) / 1.5)
    if kind == "blobs":
        plane = np.zeros((height, width))
        for _ in range(4):
            cx, cy, radius = dice.uniform(0.1, 0.9), dice.uniform(0.1, 0.9), dice.uniform(0.05, 0.2)
            plane += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * radius**2))
        return _bytes(plane)
    points = dice.uniform(0.15, 0.85, (4, 2))
    distance = np.full((height, width), 2.0)
    for (ax, ay), (bx, by) in pairwise(points):
        dx, dy = bx - ax, by - ay
        along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy + 1e-12), 0, 1)
        distance = np.minimum(distance, np.hypot(x - ax - along * dx, y - ay - along * dy))
    return _bytes(1.4 - distance / 0.06)


def _bytes(plane: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(plane, 0, 1) * 255).astype(np.uint8)
