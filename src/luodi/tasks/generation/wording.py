"""Texts that were written, scored by their words: what an exam keeps of them, and its figures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np

from luodi.fields.wording.metrics import METRICS
from luodi.fields.wording.segments import Language

NAMES = ("bleu", "chrf", "exact_match")


def columns(answers: Sequence[str], truths: Sequence[str], language: Language, end: str) -> dict[str, np.ndarray]:
    """The texts and the counts of each metric, as long as the truths; of rows without an answer zeros."""
    empty = len(truths) - len(answers)
    found: dict[str, np.ndarray] = {f"written{end}": np.asarray([*answers, *[""] * empty], object)}
    for name in NAMES:
        counts = METRICS[name].counts(answers, truths[: len(answers)], language)
        found[name + end] = np.concatenate([counts, np.zeros((empty, *counts.shape[1:]), counts.dtype)])
    return found


def values(columns: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Every metric of the rows' counts that are there."""
    known = metrics([name.removeprefix("written") for name in columns if name.startswith("written")])
    return {name: METRICS[name.removesuffix("_beam")].value(columns[name].sum(axis=0)) for name in known}


def metrics(ends: Collection[str]) -> dict[str, Literal["higher", "lower"]]:
    """Every metric of these searches, and which way is better."""
    return {name + end: METRICS[name].better for name in NAMES for end in ends}
