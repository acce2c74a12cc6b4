"""How far the answers of a form are from torch's, and how far they may move on another processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from luodi.core.parity import drift
from luodi.core.spec import Arrays

if TYPE_CHECKING:
    from luodi.core.task import Forward

NUDGE = 1e-6  # relative: about what another order of float32 sums changes
LEAST, MOST = 1e-3, 2e-2  # bounds of an integer form's tolerance


def largest_drift(reference: Forward, other: Forward, arrays: Arrays) -> float:
    """Largest |difference| over the largest |reference|, of all rows at once and the first alone; inf if not finite.

    The single row proves that the batch axis is free.
    """
    return drift(_twice(other, arrays), _twice(reference, arrays))


def _twice(forward: Forward, arrays: Arrays) -> Arrays:
    whole, first = forward(arrays), forward({name: array[:1] for name, array in arrays.items()})
    return {name: np.concatenate([whole[name], first[name]]) for name in whole}


def flips(forward: Forward, arrays: Arrays, dice: np.random.Generator) -> float:
    """The tolerance of an integer form: four times what flipped roundings change when inputs move by 1e-6.

    On one machine a form repeats its bits; another processor sums floats in another order, which flips roundings.
    """
    nudged = {
        name: (array * (1 + NUDGE * dice.standard_normal(array.shape))).astype(array.dtype)
        if np.issubdtype(array.dtype, np.floating)
        else array
        for name, array in arrays.items()
    }
    return float(np.clip(4 * drift(forward(nudged), forward(arrays)), LEAST, MOST))
