"""What each sample's package files hold, as an Arrow table. Read with numpy alone: `datasets` takes 7 CPU seconds."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from PIL import Image

from luodi.data.reading.kept import bytes_type
from luodi.data.reading.png import png
from luodi.data.samples.clipart import clipart
from luodi.data.samples.package import Sample
from luodi.data.samples.pairs import cldr, handbook
from luodi.data.samples.questions import dictionary_questions
from luodi.data.samples.stamps import stamps
from luodi.data.samples.texts import poems, reviews, rotten, scenes, tabbed, tagged
from luodi.data.sources.hub import Hub


def table_of(name: str, sample: Sample, files: Mapping[str, bytes]) -> pa.Table:
    """The sample's columns from the bytes of its package files, in the order of the pinned list."""
    if name == "digits":
        table = _digits(sample, *files.values())
    elif name == "fashion_mnist":
        table = _fashion(sample, files)
    elif name in READERS:
        table = READERS[name](sample, files)
    else:
        table = _labelled(sample, *files.values())
    assert table.num_rows == sample.rows, f"{name}: {table.num_rows} rows, pinned {sample.rows}"
    return table


def pictures(sample: Sample, images: np.ndarray, labels: Sequence[int]) -> pa.Table:
    """Images (count, height, width) uint8 and class numbers as the columns image and label."""
    encoded = [png(image) for image in images]
    kind = bytes_type(sum(map(len, encoded)))
    names = [sample.labels[int(label)] for label in labels]
    return pa.table({"image": pa.array(encoded, kind), "label": pa.array(names, pa.string())})


def from_hub(sample: Sample, cache: Path) -> pa.Table:
    """The same rows from the hub. The images are decoded and written again, so that rows and identities are equal."""
    assert sample.hub is not None
    rows = Hub(name=sample.hub, split="train+test").open(cache)
    images = [np.asarray(Image.open(io.BytesIO(cell)).convert("L")) for cell in rows.column("image")]
    numbers = {label: number for number, label in enumerate(sample.labels)}
    labels = [numbers[label.replace("T - shirt / top", "T-shirt/top")] for label in rows.column("label")]
    return pictures(sample, np.stack(images), labels)


def _digits(sample: Sample, file: bytes) -> pa.Table:
    lines = pa.csv.read_csv(  # 784 pixels and the digit; ten times faster than np.loadtxt
        io.BytesIO(gzip.decompress(file)), read_options=pa.csv.ReadOptions(autogenerate_column_names=True)
    )
    cells = np.column_stack([column.to_numpy() for column in lines.columns]).astype(np.uint8)
    return pictures(sample, cells[:, :784].reshape(-1, 28, 28), cells[:, 784].tolist())


def _fashion(sample: Sample, files: Mapping[str, bytes]) -> pa.Table:
    """Both parts, training first; the IDX format: big-endian sizes after a 4-byte mark, then bytes."""
    arrays = []
    for file in files.values():
        data = gzip.decompress(file)
        axes = data[3]
        shape = np.frombuffer(data, ">u4", axes, 4)
        arrays.append(np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape))
    train, train_labels, test, test_labels = arrays
    return pictures(sample, np.concatenate([train, test]), np.concatenate([train_labels, test_labels]).tolist())


def _labelled(sample: Sample, file: bytes) -> pa.Table:
    """Comma separated: a line of counts and class names, then numbers with the class number last."""
    _, *lines = csv.reader(io.StringIO(file.decode()))
    cells = np.asarray(lines, dtype=np.float64)
    columns = {name: pa.array(cells[:, at]) for at, name in enumerate(sample.columns[:-1])}
    labels = [sample.labels[int(label)] for label in cells[:, -1]]
    return pa.table({**columns, sample.columns[-1]: pa.array(labels, pa.string())})


def _diabetes(sample: Sample, files: Mapping[str, bytes]) -> pa.Table:
    inputs, target = (np.loadtxt(io.BytesIO(gzip.decompress(file)), dtype=np.float64) for file in files.values())
    cells = np.column_stack([inputs, target])
    return pa.table({name: pa.array(cells[:, at]) for at, name in enumerate(sample.columns)})


READERS: dict[str, Callable[[Sample, Mapping[str, bytes]], pa.Table]] = {
    "openclipart": clipart,
    "diabetes": _diabetes,
    "reviews_zh": reviews,
    "rotten_tomatoes": rotten,
    "newsgroups": tabbed,
    "reuters_r8": tabbed,
    "shakespeare": scenes,
    "tang_poems": poems,
    "peoples_daily": tagged,
    "cldr_pairs": cldr,
    "debian_handbook": handbook,
    "stamps": stamps,
    "dictionary_questions": dictionary_questions,
}
