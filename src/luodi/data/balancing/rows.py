"""New rows from old ones: copies, rows made up between neighbours, pictures changed at random."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.task import Task
from luodi.data.balancing.counts import drawn, places_of
from luodi.data.balancing.synthetic import Columns, coded, made_up
from luodi.data.columns.fields import fields, kind

MADE = "made:"  # how the identity of a row begins that is nobody's row


def copied(labels: Sequence[str], wanted: Mapping[str, int], run: Run) -> np.ndarray:
    """Row numbers, the rows of each label as often as wanted: more are drawn as copies, fewer without putting back."""
    chosen = [drawn(places, wanted[label], run.dice("rows", label)) for label, places in places_of(labels).items()]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def synthesised(task: Task, rows: Rows, labels: Sequence[str], wanted: Mapping[str, int], near: int, run: Run) -> Rows:
    """The rows, then those made up for each label that wants more; a label of one row is copied."""
    known = {name: field for name, field in fields(task, "inputs").items() if name in rows.columns}
    numbers = [name for name, field in known.items() if kind(field) == "number"]
    others = [name for name in known if name not in numbers]
    cells = [np.asarray([_float(known[name].read(cell)) for cell in rows.column(name)]) for name in numbers]
    codes = [coded(rows.column(name)) for name in others]
    count = len(rows)
    whole = Columns(
        np.stack(cells, axis=1) if cells else np.zeros((count, 0)),
        np.stack([code for code, _ in codes], axis=1) if codes else np.zeros((count, 0), np.int64),
    )
    added: list[Rows] = []
    for label, places in places_of(labels).items():
        more = wanted[label] - len(places)
        if more > 0 and len(places) == 1:
            added.append(rows.take(np.repeat(places, more)))
        elif more > 0:
            new, begun = made_up(whole, places, more, near, run.dice("rows", label))
            given: dict[str, Any] = {name: new.numbers[:, at] for at, name in enumerate(numbers)}
            given |= {name: [codes[at][1][c] for c in new.labels[:, at]] for at, name in enumerate(others)}
            added.append(_with(rows.take(begun), given))
    return _joined(rows, added, numbers)


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _with(begun: Rows, given: Mapping[str, Any]) -> Rows:
    """Rows with other cells in some columns, under identities of their own."""
    table = begun.table
    for name, cells in given.items():
        at = table.column_names.index(name)
        if isinstance(cells, np.ndarray):
            column = pa.array([None if np.isnan(cell) else cell for cell in cells.tolist()], pa.float64())
        else:
            column = pa.array(cells, table.schema.field(name).type)
        table = table.set_column(at, name, column)
    return Rows(table, np.asarray([f"{MADE}{name}:{at}" for at, name in enumerate(begun.ids)], object))


def _joined(rows: Rows, added: Sequence[Rows], numbers: Sequence[str]) -> Rows:
    """All of them; a column of numbers that new rows fall between becomes float64."""
    tables = []
    for one in (rows, *added):
        table = one.table
        for name in numbers if added else ():
            table = table.set_column(table.column_names.index(name), name, _floats(table, name))
        tables.append(table)
    return Rows(pa.concat_tables(tables), np.concatenate([rows.ids, *(one.ids for one in added)]))


def _floats(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column if str(column.type) == "double" else pa.array(
        [None if cell is None or cell == "" else float(cell) for cell in column.to_pylist()], pa.float64()
    )  # fmt: skip


def pictured(
    task: Task, rows: Rows, labels: Sequence[str], wanted: Mapping[str, int], augments: Sequence[Any], run: Run
) -> Rows:
    """The rows, then pictures of rare labels changed at random by the augments, in order."""
    name, field = next((name, field) for name, field in fields(task, "inputs").items() if kind(field) == "image")
    added: list[Rows] = []
    for label, places in places_of(labels).items():
        more = wanted[label] - len(places)
        if more > 0:
            begun = rows.take(drawn(places, more, run.dice("rows", label)))
            cells = [
                _changed(
                    field.read(cell), augments, lambda n, at=at, label=label: run.generator("picture", label, at, n)
                )
                for at, cell in enumerate(begun.column(name))
            ]
            added.append(_with(begun, {name: cells}))
    return _joined(rows, added, ())


def _changed(pixels: np.ndarray, augments: Sequence[Any], generator: Callable[[int], Any]) -> bytes:
    """PNG bytes of a picture after the augments, on the scale 0..1."""
    import torch
    from PIL import Image

    planes = pixels if pixels.ndim == 3 else pixels[:, :, None]
    values = torch.from_numpy(planes.astype(np.float32) / 255).permute(2, 0, 1)[None]
    for number, augment in enumerate(augments):
        values = augment.apply(values, generator(number))
    changed = (values[0].permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    stream = io.BytesIO()
    Image.fromarray(changed if pixels.ndim == 3 else changed[:, :, 0]).save(stream, "PNG")
    return stream.getvalue()
