"""Small learnable rows for the tests of training: blobs as images, columns as a table."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from luodi.core.bundle import Bundle
from luodi.core.check import first_facts
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.source import Data, rows_of
from luodi.core.thing import make


def image_rows(count: int, seed: int) -> Rows:
    """8 x 8 pictures of one bright quarter; the label says which of the four."""
    dice = np.random.default_rng(seed)
    labels, cells = dice.integers(0, 4, count), []
    for label in labels:
        pixels = dice.integers(0, 90, (8, 8))
        pixels[4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 60
        stream = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
        cells.append(stream.getvalue())
    return rows_of({"image": cells, "label": [f"q{label}" for label in labels]})


def table_rows(count: int, seed: int) -> Rows:
    """Three numbers; `side` is the sign of their sum, `total` is the sum, `id` is nobody's input."""
    dice = np.random.default_rng(seed)
    x = dice.normal(size=(count, 3))
    side = np.where(x.sum(1) > 0, "up", "down")
    columns = {f"x{place}": x[:, place].tolist() for place in range(3)}
    return rows_of({**columns, "side": side.tolist(), "total": x.sum(1).tolist(), "id": list(range(count))})


def year_rows(count: int, seed: int, most: int = 12) -> Rows:
    """Contexts of fewer than `most` words, in four of five of them a year, which is asked for."""
    dice = np.random.default_rng(seed)
    cells: dict[str, list[str]] = {"question": [], "context": [], "answer": []}
    for _ in range(count):
        words = [f"w{one}" for one in dice.integers(0, 20, int(dice.integers(4, most)))]
        answer = f"{dice.integers(1900, 1930)}" if dice.random() < 0.8 else ""
        if answer:
            words.insert(int(dice.integers(0, len(words))), answer)
        cells["question"].append("which year ?")
        cells["context"].append(" ".join(words))
        cells["answer"].append(answer)
    return rows_of(cells)


IMAGES = {"supervised": {"inputs": {"image": {"image": {"size": 8, "channels": 1}}}, "targets": {"label": "category"}}}
NUMBERS = {"x0": "number", "x1": "number", "x2": "number"}
SIDES = {"supervised": {"inputs": NUMBERS, "targets": {"side": "category"}}}
TOTALS = {"supervised": {"inputs": NUMBERS, "targets": {"total": "number"}}}
BOTH = {"supervised": {"inputs": NUMBERS, "targets": {"side": "category", "total": {"number": {"weight": 0.3}}}}}


def bundle_of(task: object, model: object, train: Rows, validation: Rows | None = None) -> Bundle:
    """A bundle at the point where `split` leaves it."""
    made = make("tasks", task)
    splits = {"train": train} | ({"validation": validation} if validation is not None else {})
    facts = first_facts(made, True) | {"split"}
    return Bundle(task=made, config=make("models", model), data=Data(splits), facts=facts)


def images_bundle(model: object, count: int = 96) -> Bundle:
    return bundle_of(IMAGES, model, image_rows(count, 0), image_rows(48, 1))


def table_bundle(task: object, model: object, count: int = 128) -> Bundle:
    return bundle_of(task, model, table_rows(count, 0), table_rows(64, 1))


def sha(bundle: Bundle) -> str:
    from luodi.train.loop.identity import weights_sha

    assert bundle.model is not None
    return weights_sha(bundle.model)


__all__ = [
    "BOTH",
    "IMAGES",
    "SIDES",
    "TOTALS",
    "Run",
    "bundle_of",
    "image_rows",
    "images_bundle",
    "sha",
    "table_bundle",
    "table_rows",
    "year_rows",
]
