"""Rows as the tensors that a model is given: encoded once where they fit, else batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from luodi.core.errors import LuodiError

if TYPE_CHECKING:
    from torch import Tensor

    from luodi.core.rows import Rows
    from luodi.core.spec import Arrays
    from luodi.core.task import Task
    from luodi.train.loop.changes import Texts

CHUNK = 512  # rows encoded at a time
PROBE = 64  # rows from which the size of all is estimated

Pair = tuple[Mapping[str, "Tensor"], Mapping[str, "Tensor"]]  # inputs, truth

Piece = tuple["Tensor", tuple[int, int, int]]  # row numbers, and their key: (update, piece, rank)


class Examples(Protocol):
    """Numbered examples, given out in batches."""

    @property
    def count(self) -> int: ...

    def batch(self, rows: Tensor, key: tuple[int, ...] = ()) -> Pair:
        """Inputs and truth of these row numbers (int64, on the CPU), on the training device.

        `key` is (update, piece, rank): what a change of texts may depend on.
        """
        ...

    def on(self, device: str) -> Examples:
        """The same examples, given out on another device."""
        ...


@dataclass(frozen=True)
class Held:
    """Every example encoded, in memory on the training device."""

    inputs: Mapping[str, Tensor]
    truth: Mapping[str, Tensor]
    count: int
    device: str = "cpu"

    def batch(self, rows: Tensor, key: tuple[int, ...] = ()) -> Pair:
        if self.device != "cpu":
            rows = rows.to(self.device)
        return (
            {name: tensor.index_select(0, rows) for name, tensor in self.inputs.items()},
            {name: tensor.index_select(0, rows) for name, tensor in self.truth.items()},
        )

    def on(self, device: str) -> Held:
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return Held(inputs, {name: tensor.to(device) for name, tensor in self.truth.items()}, self.count, device)


@dataclass(frozen=True)
class Read:
    """Examples read and encoded when their batch is due: for more rows than fit the memory, and texts that change."""

    task: Task
    rows: Rows
    device: str = "cpu"
    texts: Texts | None = None

    @property
    def count(self) -> int:
        return len(self.rows)

    def batch(self, rows: Tensor, key: tuple[int, ...] = ()) -> Pair:
        taken = self.rows.take(rows.numpy())
        requests = self.task.rows_to_requests(taken)
        inputs = self.task.encode(self.texts.changed(requests, key) if self.texts else requests)
        truth = self.task.truth(taken)
        return _tensors(inputs, self.device), _tensors(truth, self.device)

    def on(self, device: str) -> Read:
        return replace(self, device=device)


def examples_of(
    task: Task, rows: Rows, device: str, hold_mb: float, texts: Texts | None = None
) -> tuple[Examples, str]:
    """The rows' examples, held if their estimated size is at most `hold_mb` and no text changes, and a sentence that
    says which."""
    if not len(rows):
        raise LuodiError("there are no rows to learn from; look at the split and at what the data steps before it kept")
    if texts:
        told = f"{len(rows)} examples read and encoded batch by batch: their texts change each time"
        return Read(task, rows, device, texts), told
    size = size_mb(task, rows)
    if size > hold_mb:
        told = f"{len(rows)} examples need about {size:.0f} MB, over {hold_mb:g} MB: read and encoded batch by batch"
        return Read(task, rows, device), told
    inputs, truth = encode_all(task, rows)
    told = f"{len(rows)} examples encoded once and held in memory ({size:.1f} MB)"
    return Held(_tensors(inputs, device), _tensors(truth, device), len(rows), device), told


def size_mb(task: Task, rows: Rows) -> float:
    """MB of all rows encoded, from the first few."""
    inputs, truth = _encode(task, rows.take(np.arange(min(PROBE, len(rows)))))
    one = sum(array.nbytes for array in (*inputs.values(), *truth.values())) / min(PROBE, len(rows))
    return one * len(rows) / 1e6


def encode_all(task: Task, rows: Rows) -> tuple[Arrays, Arrays]:
    """Inputs and truth of all rows as whole arrays, encoded in pieces: at no moment are they there twice."""
    whole: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = ({}, {})
    for at in range(0, len(rows), CHUNK):
        for arrays, piece in zip(
            whole, _encode(task, rows.take(np.arange(at, min(at + CHUNK, len(rows))))), strict=True
        ):
            for name, array in piece.items():
                if name not in arrays:
                    arrays[name] = np.empty((len(rows), *array.shape[1:]), array.dtype)
                arrays[name][at : at + len(array)] = array
    return whole


def _encode(task: Task, rows: Rows) -> tuple[Arrays, Arrays]:
    return task.encode(task.rows_to_requests(rows)), task.truth(rows)


def _tensors(arrays: Arrays, device: str) -> dict[str, Tensor]:
    import torch

    return {
        name: torch.from_numpy(np.require(array, requirements=["C", "W"])).to(device) for name, array in arrays.items()
    }
