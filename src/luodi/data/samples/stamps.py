"""Tux Paint's stamps as rows: a small picture, a sentence in English and in Chinese, and what kind of thing it is."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import PurePosixPath

import pyarrow as pa

from luodi.data.reading.kept import bytes_type
from luodi.data.samples.clipart import small
from luodi.data.samples.package import Sample

LONGEST = 128  # pixels of a kept picture's longer side
CHINESE = "zh_CN.utf8="


def stamps(sample: Sample, files: Mapping[str, bytes]) -> pa.Table:
    """The columns image, english, chinese, group and label: the first folder is the label, all folders the group.

    Pictures without a sentence in both languages are left out; so are drawings (SVG), and mirrored copies, which have
    no sentence."""
    root = PurePosixPath(next(iter(sample.members))).parent
    cells: list[bytes] = []
    rows: list[tuple[str, str, str, str]] = []
    for path in sorted(path for path in files if path.endswith(".png")):
        said = sentences(files.get(path.removesuffix(".png") + ".txt", b"").decode())
        if all(said):
            folder = PurePosixPath(path).relative_to(root).parent
            stream = io.BytesIO()
            small(files[path], LONGEST).save(stream, "PNG", optimize=True)
            cells.append(stream.getvalue())
            rows.append((*said, str(folder), folder.parts[0]))
    texts = [pa.array(cell, pa.string()) for cell in zip(*rows, strict=True)]
    return pa.table([pa.array(cells, bytes_type(sum(map(len, cells)))), *texts], names=list(sample.columns))


def sentences(text: str) -> tuple[str, str]:
    """English, the first line, and Chinese; empty where there is none."""
    english, *others = (line.strip() for line in text.split("\n"))
    chinese = [line.removeprefix(CHINESE).strip() for line in others if line.startswith(CHINESE)]
    return english, chinese[0] if chinese else ""
