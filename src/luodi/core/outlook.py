"""What a recipe will cost, before it is run: from the model on the meta device, or from the run before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from luodi.core.rows import Rows
from luodi.core.spec import Arrays, Spec
from luodi.core.task import Task
from luodi.core.thing import ModelConfig

# Arithmetic that small models reach on one CPU core with fp32, training; large matrices reach several times more
# (measured: a BERT of 384 numbers a token, 4 to 5 times).
FLOPS_A_CORE, SMALL, FASTER = 1.2e10, 1e8, 4.0
LOOKED_AT = 256  # rows whose lengths tell those of all


@dataclass(frozen=True)
class Outlook:
    """A model and its rows: what a step's forecast is made of."""

    rows: int  # of the training split
    parameters: int
    flops: float  # of one forward of one row; of texts, of one of mean length
    activations: int  # bytes kept of one row until its gradient is done
    threads: int
    task: Task  # fitted
    config: ModelConfig
    example: tuple[Arrays, Arrays]  # inputs and truth of two rows, encoded
    validation: int  # rows
    device: str = "cpu"

    @property
    def flops_a_second(self) -> float:
        """What all threads together may reach with this model."""
        return FLOPS_A_CORE * min(max(self.flops / SMALL, 1.0), FASTER) * self.threads


@dataclass(frozen=True)
class Forecast:
    """What a step will take: seconds, roughly, and MB at its peak."""

    seconds: float
    memory_mb: float
    told: str = ""  # what the memory is for


def outlook(
    task: Task, config: ModelConfig, rows: Rows, threads: int, *, validation: int = 0, device: str = "cpu"
) -> Outlook:
    """Counts parameters, FLOPs and activations of one row on the meta device; `task` is fitted, `rows` are those to
    train on, `validation` is how many are looked at between."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    kept = [0]
    with torch.device("meta"):
        model = task.build(config).train()
        batch = {name: _blank(spec) for name, spec in task.inputs_specs().items()}
        for module in model.modules():
            if not list(module.children()):
                module.register_forward_hook(lambda m, i, out: kept.__setitem__(0, kept[0] + _bytes(out)))
        with FlopCounterMode(display=False) as counter:
            model(**batch)
    parameters = sum(tensor.numel() for tensor in model.parameters())
    two, flops = rows.take(longest(rows, task)), counter.get_total_flops() / 2 * _filled(task, rows)
    return Outlook(
        len(rows), parameters, flops, kept[0] // 2, threads, task, config,
        (task.encode(task.rows_to_requests(two)), task.truth(two)), validation, device,
    )  # fmt: skip


def longest(rows: Rows, task: Task) -> list[int]:
    """Two rows: the first ones, or where an axis is free those with the longest texts."""
    specs = task.inputs_specs()
    free = any(isinstance(side, str) for spec in specs.values() for side in spec.shape)
    texts = [name for name in rows.columns if name in specs] if free else []
    sizes = [0] * len(rows)
    for name in texts:
        for place, cell in enumerate(rows.cells(name)):
            sizes[place] += len(cell) if isinstance(cell, str | bytes) else 0
    order = sorted(range(len(rows)), key=lambda place: -sizes[place])
    return [order[place % len(rows)] for place in range(2)]


def _filled(task: Task, rows: Rows) -> float:
    """How much of their longest length texts have, 0..1; 1 where all rows are equally long."""
    free = {name: spec for name, spec in task.inputs_specs().items() if spec.shape and isinstance(spec.shape[0], str)}
    if not free:
        return 1.0
    some = rows.take(range(0, len(rows), max(len(rows) // LOOKED_AT, 1)))
    arrays = task.encode(task.rows_to_requests(some))
    longest = sum(len(some) * (spec.most or 16) for spec in free.values())
    return sum(float((arrays[name] != spec.pad).sum()) for name, spec in free.items()) / longest


def _blank(spec: Spec) -> Any:
    import torch

    # Two rows: norms need more than one. A free axis as long as it may be.
    shape = [2, *(size if isinstance(size, int) else spec.most or 16 for size in spec.shape)]
    return torch.zeros(shape, dtype=getattr(torch, spec.dtype))


def _bytes(out: Any) -> int:
    if isinstance(out, Mapping):
        return sum(map(_bytes, out.values()))
    if isinstance(out, list | tuple):
        return sum(map(_bytes, out))
    return out.numel() * out.element_size() if hasattr(out, "numel") else 0
