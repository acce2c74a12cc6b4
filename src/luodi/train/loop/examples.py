"""Rows as the tensors that a model is given: encoded once where they fit, else batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from luodi.core.errors import LuodiError

if TYPE_CHECKING:
    from torch import Tensor

    from luodi.core.rows import Rows
    from luodi.core.spec import Arrays, Spec
    from luodi.core.task import Task
    from luodi.train.loop.changes import Texts

CHUNK = 128  # rows encoded at a time: pictures are there as they were taken
PROBE = 64  # rows from which the size of all is estimated

Pair = tuple[Mapping[str, "Tensor"], Mapping[str, "Tensor"]]  # inputs, truth

Piece = tuple["Tensor", tuple[int, int, int]]  # row numbers, and their key: (update, piece, rank)


class Examples(Protocol):
    """Numbered examples, given out in batches."""

    @property
    def count(self) -> int: ...

    @property
    def sizes(self) -> Tensor | None:
        """int64 (rows,): how long each row is; None where all are equally long or it is not known."""
        ...

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
    """Every example encoded, in memory on the training device.

    `lengths` holds, for each input with a free axis, how much of it each row fills: a batch is as long as its longest.
    """

    inputs: Mapping[str, Tensor]
    truth: Mapping[str, Tensor]
    count: int
    device: str = "cpu"
    lengths: Mapping[str, Tensor] = field(default_factory=dict)  # int64 (rows,), on the CPU

    def batch(self, rows: Tensor, key: tuple[int, ...] = ()) -> Pair:
        widths = {name: int(lengths[rows].max()) for name, lengths in self.lengths.items()}
        if self.device != "cpu":
            rows = rows.to(self.device)
        return (
            {
                name: (tensor[:, : widths[name]] if name in widths else tensor).index_select(0, rows)
                for name, tensor in self.inputs.items()
            },
            {name: tensor.index_select(0, rows) for name, tensor in self.truth.items()},
        )

    def on(self, device: str) -> Held:
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        truth = {name: tensor.to(device) for name, tensor in self.truth.items()}
        return replace(self, inputs=inputs, truth=truth, device=device)

    @property
    def sizes(self) -> Tensor | None:
        """How much of all free axes each row fills, None where every row is equally long."""
        import torch

        return torch.stack(list(self.lengths.values())).sum(0) if self.lengths else None


@dataclass(frozen=True)
class Read:
    """Examples read and encoded when their batch is due: for more rows than fit the memory, and texts that change."""

    task: Task
    rows: Rows
    device: str = "cpu"
    texts: Texts | None = None

    sizes: Tensor | None = None

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
        return Read(task, rows, device, texts, sizes_of(task, rows)), told
    size = size_mb(task, rows)
    if size > hold_mb:
        told = f"{len(rows)} examples need about {size:.0f} MB, over {hold_mb:g} MB: read and encoded batch by batch"
        return Read(task, rows, device), told
    inputs, truth = encode_all(task, rows)
    lengths = lengths_of(task, inputs)
    told = f"{len(rows)} examples encoded once and held in memory ({size:.1f} MB)"
    if lengths:
        longest = max(lengths.values(), key=lambda found: int(found.max()))
        told += f"; of {float(longest.double().mean()):.0f} tokens on average, {int(longest.max())} at most"
    return Held(_tensors(inputs, device), _tensors(truth, device), len(rows), device, lengths), told


def size_mb(task: Task, rows: Rows) -> float:
    """MB of all rows encoded, from the first few."""
    inputs, truth = _encode(task, rows.take(np.arange(min(PROBE, len(rows)))))
    one = sum(array.nbytes for array in (*inputs.values(), *truth.values())) / min(PROBE, len(rows))
    # Of free axes: what the longest row may take, for all are padded to it while they are held.
    one += sum(
        max(spec.most - inputs[name].shape[1], 0) * inputs[name].itemsize
        for name, spec in task.inputs_specs().items()
        if free_axis(spec)
    )
    return one * len(rows) / 1e6


def encode_all(task: Task, rows: Rows) -> tuple[Arrays, Arrays]:
    """Inputs and truth of all rows as whole arrays, encoded in pieces: at no moment are they there twice."""
    pads = {name: spec.pad for name, spec in task.inputs_specs().items() if free_axis(spec)}
    whole: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = ({}, {})
    for at in range(0, len(rows), CHUNK):
        for arrays, piece in zip(
            whole, _encode(task, rows.take(np.arange(at, min(at + CHUNK, len(rows))))), strict=True
        ):
            for name, array in piece.items():
                if name not in arrays:
                    arrays[name] = np.full((len(rows), *array.shape[1:]), pads.get(name, 0), array.dtype)
                elif name in pads and array.shape[1] > arrays[name].shape[1]:
                    arrays[name] = _wider(arrays[name], array.shape[1], pads[name])
                arrays[name][(slice(at, at + len(array)), *map(slice, array.shape[1:]))] = array
    return whole


def free_axis(spec: Spec) -> str | None:
    """The name of the axis after the batch, if it is free."""
    return spec.shape[0] if spec.shape and isinstance(spec.shape[0], str) else None


def lengths_of(task: Task, inputs: Arrays) -> dict[str, Tensor]:
    """Input -> int64 (rows,): up to where each row of the input, or of one beside it on the same axis, is no padding.

    At least 1. Inputs whose axes are fixed are left out.
    """
    import torch

    filled: dict[str, np.ndarray] = {}
    axes = {name: (axis, spec.pad) for name, spec in task.inputs_specs().items() if (axis := free_axis(spec))}
    for name, (axis, pad) in axes.items():
        is_there = (inputs[name] != pad).reshape(*inputs[name].shape[:2], -1).any(axis=2)
        last = is_there.shape[1] - is_there[:, ::-1].argmax(axis=1)
        found = np.where(is_there.any(axis=1), last, 1)
        filled[axis] = np.maximum(filled.get(axis, 1), found)
    return {name: torch.from_numpy(filled[axis].astype(np.int64)) for name, (axis, _) in axes.items()}


def sizes_of(task: Task, rows: Rows) -> Tensor | None:
    """How long each row is, encoded piece by piece; None where all are equally long."""
    import torch

    if not any(map(free_axis, task.inputs_specs().values())):
        return None
    found = []
    for at in range(0, len(rows), CHUNK):
        inputs, _ = _encode(task, rows.take(np.arange(at, min(at + CHUNK, len(rows)))))
        found.append(torch.stack(list(lengths_of(task, inputs).values())).sum(0))
    return torch.cat(found)


def _wider(array: np.ndarray, width: int, pad: int) -> np.ndarray:
    more = [(0, 0), (0, width - array.shape[1]), *[(0, 0)] * (array.ndim - 2)]
    return np.pad(array, more, constant_values=pad)


def _encode(task: Task, rows: Rows) -> tuple[Arrays, Arrays]:
    return task.encode(task.rows_to_requests(rows)), task.truth(rows)


def _tensors(arrays: Arrays, device: str) -> dict[str, Tensor]:
    import torch

    return {
        name: torch.from_numpy(np.require(array, requirements=["C", "W"])).to(device) for name, array in arrays.items()
    }
