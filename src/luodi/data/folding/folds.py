"""Rows in folds: even in size and in labels, rows of one identity together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from luodi.core.errors import LuodiError
from luodi.data.splitting.assign import assign


@dataclass(frozen=True)
class Fold:
    """Row numbers to learn from and row numbers to ask about, both int64."""

    learned: np.ndarray
    asked: np.ndarray


def folds_of(names: Sequence[str], strata: Sequence[str], count: int, seed: int) -> Iterator[Fold]:
    """`count` folds: every row is asked about once; where it is, is a function of its name, the strata and the seed.

    Raises LuodiError if the names do not fill the folds.
    """
    shares = {str(fold): 1 / count for fold in range(count - 1)}
    parts = list(assign(names, strata, shares, seed).values())
    if not all(parts):
        raise LuodiError(f"{len(set(names))} different rows do not fill {count} folds; use fewer folds")
    every = np.arange(len(names))
    for part in parts:
        asked = np.sort(np.asarray(part, np.int64))
        yield Fold(np.setdiff1d(every, asked), asked)
