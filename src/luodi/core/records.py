"""Answers and truths of one evidence as a Parquet file: what metrics, slices, flips and galleries read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from luodi.core.task import Exam

FOLDS = "folds.parquet"  # what the step `folds` leaves aside: the answers to every row that was asked about


def write(exam: Exam, path: Path) -> Path:
    """Writes an exam aside and renames it; two-dimensional columns become lists."""
    import pyarrow as pa
    from pyarrow import parquet

    columns: dict[str, pa.Array] = {"id": pa.array([str(i) for i in exam.ids], pa.string())}
    for name, values in exam.columns.items():
        if values.ndim == 2:
            flat = pa.array(values.ravel())
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        else:
            columns[name] = pa.array(values.tolist() if values.dtype.kind in "OU" else values)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    parquet.write_table(pa.table(columns), aside)
    return aside.replace(path)


def read(path: Path) -> Exam:
    """The exam that `write` wrote."""
    from pyarrow import parquet

    table = parquet.read_table(path)
    columns: dict[str, np.ndarray] = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        if str(column.type).startswith("fixed_size_list"):
            width = column.type.list_size
            columns[name] = np.asarray(column.flatten()).reshape(-1, width)
        elif str(column.type) == "string":
            columns[name] = np.asarray(column.to_pylist(), dtype=object)
        else:
            columns[name] = np.asarray(column)
    return Exam(columns.pop("id"), columns)


def shared(after: Exam, before: Exam) -> tuple[Exam, Exam]:
    """Both exams on the rows they share, in the order of the first."""
    places = {identity: index for index, identity in enumerate(before.ids)}
    pairs = [(i, places[identity]) for i, identity in enumerate(after.ids) if identity in places]
    chosen = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    return after.take(chosen[:, 0]), before.take(chosen[:, 1])
