"""States for the examples that a model with a memory is traced and compared on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from luodi.core.predictor import HELD, START, empty, one_by_one
from luodi.core.spec import Arrays, Signature

if TYPE_CHECKING:
    from luodi.core.run import Run
    from luodi.core.task import Forward

LENGTH = 6  # of a growing state; rows hold 1 to so many


def with_states(arrays: Arrays, signature: Signature, run: Run) -> Arrays:
    """The arrays with random states beside them, as large as normal ones are; the same for a model without a memory.

    Where a state grows, the arrays are cut so that what is held and what is new fit the length together.
    """
    if not signature.state:
        return arrays
    rows, dice = len(next(iter(arrays.values()))), run.dice("states")
    found = dict(arrays)
    specs = {**signature.inputs, **(signature.reading.inputs if signature.reading else {})}
    for name in signature.state:
        shape = empty(signature.inputs[name], rows, LENGTH).shape
        found[name] = dice.standard_normal(shape).astype(signature.inputs[name].dtype)
    if one_by_one(signature):
        found |= {name: array[:, :1] for name, array in arrays.items() if specs[name].shape == (1,)}
    if any(HELD in signature.inputs[name].shape for name in signature.state):
        for name, array in arrays.items():
            spec = specs[name]
            if spec.most and isinstance(spec.shape[0], str):
                found[name] = array[:, : max(spec.most - LENGTH, 1)]
        found[START] = np.asarray(1 + dice.integers(0, LENGTH, rows), np.int64)
    return found


def in_parts(arrays: Arrays, signature: Signature, forward: Forward) -> tuple[Arrays, Arrays]:
    """(what is read once, what a step is given): the second with what the forward makes of the first."""
    assert signature.reading is not None
    read = {name: arrays[name] for name in signature.reading.inputs}
    return read, {**{name: array for name, array in arrays.items() if name in signature.inputs}, **forward(read)}
