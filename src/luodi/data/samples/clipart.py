"""Open Clip Art as rows: small pictures, their kind, and which of them are nearly the same."""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
from PIL import Image

from luodi.data.reading.kept import bytes_type
from luodi.data.samples.package import Sample

LONGEST = 96  # pixels of a kept picture's longer side: 25 MB in all instead of 130
LARGEST = 40_000_000  # pixels; sixteen pictures have up to 623 million, gigabytes once decoded
SIDE, LOW = 32, 8  # pixels of a thumbnail's side, and the frequencies of each axis that are looked at
# Largest distance of two pictures' waves, each of length 1. Looked at by eye: within it lie colour variants of one
# drawing and its copies; at 0.3 different flags and different signs begin to meet.
MOST_OFF = 0.2
MOST = 24  # pictures of one such group that are kept: 1,370 of the drawings are rings of rays
FLAT = 64.0  # length of the waves below which a picture is one shade: 2 grey levels of deviation


def clipart(sample: Sample, files: Mapping[str, bytes]) -> pa.Table:
    """The columns image, group and label. `group` is equal for pictures that are nearly the same, through any chain of
    such pairs; the first 24 of a group are kept. Files of other folders than the labels', and those too large to
    decode, are left out."""
    (root,) = sample.members
    cells: list[bytes] = []
    labels: list[str] = []
    looks: list[np.ndarray] = []
    for path in sorted(files):
        label = PurePosixPath(path).relative_to(root).parts[0].replace("_", " ")
        if label in sample.labels and pixels(files[path]) <= LARGEST:
            picture = small(files[path])
            stream = io.BytesIO()
            picture.save(stream, "PNG", optimize=True)
            cells.append(stream.getvalue())
            labels.append(label)
            looks.append(waves(picture))
    groups = near_groups(np.stack(looks))
    seen: Counter[int] = Counter()
    chosen = []
    for place, group in enumerate(groups):
        seen[group] += 1
        if seen[group] <= MOST:
            chosen.append(place)
    kind = bytes_type(sum(map(len, cells)))
    table = pa.table(
        {"image": pa.array(cells, kind), "group": pa.array(groups), "label": pa.array(labels, pa.string())}
    )
    return table.take(chosen)


def pixels(png: bytes) -> int:
    """Width times height, from the header alone."""
    width, height = struct.unpack(">II", png[16:24])
    return width * height


def small(png: bytes, longest: int = LONGEST) -> Image.Image:
    """On white, RGB, at most `longest` pixels a side."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as opened:
        image = opened.convert("RGBA")
    image.thumbnail((longest, longest), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def waves(picture: Image.Image) -> np.ndarray:
    """(63,): the lowest frequencies of the cosine transform (DCT-II) of a grey thumbnail, the mean left out, of length
    1 unless the picture is one shade: what perceptual hashes round to bits."""
    grey = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    places = np.arange(SIDE)
    basis = np.sqrt(2 / SIDE) * np.cos(np.pi * (2 * places[None] + 1) * places[:LOW, None] / (2 * SIDE))
    basis[0] /= np.sqrt(2)
    found = (basis @ np.asarray(grey, np.float64) @ basis.T).ravel()[1:]
    return found / max(float(np.linalg.norm(found)), FLAT)


def near_groups(looks: np.ndarray) -> Sequence[int]:
    """For each row of (count, 63) the smallest row number that it is joined with, through however many near pairs."""
    root = list(range(len(looks)))

    def top(place: int) -> int:
        while root[place] != place:
            root[place] = root[root[place]]
            place = root[place]
        return place

    for one in range(len(looks)):
        near = np.flatnonzero(((looks[one + 1 :] - looks[one]) ** 2).sum(1) <= MOST_OFF**2)
        for other in (near + one + 1).tolist():
            low, high = sorted((top(one), top(other)))
            root[high] = low
    return [top(place) for place in range(len(looks))]
