"""The metrics of texts by name: counts of every row once, then the value of any rows from their sum.

A corpus metric is no mean over rows, yet it is bootstrapped: so an exam keeps `counts(answers, truths, language)` as a
column, and a score of the rows taken is `value(column.sum(axis=0))`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from luodi.fields.wording import answers, bleu, chrf, edits, rouge
from luodi.fields.wording.segments import Language, Truth


@dataclass(frozen=True)
class TextMetric:
    """A metric in its two halves, which way is better, and the value of a perfect answer."""

    counts: Callable[[Sequence[str], Sequence[Truth], Language], np.ndarray]
    value: Callable[[np.ndarray], float]
    better: Literal["higher", "lower"]
    best: float


METRICS: dict[str, TextMetric] = {
    "bleu": TextMetric(bleu.counts, bleu.value, "higher", 100),
    "chrf": TextMetric(chrf.counts, chrf.value, "higher", 100),
    "chrf_words": TextMetric(partial(chrf.counts, words=2), chrf.value, "higher", 100),  # chrF++
    "rouge1": TextMetric(partial(rouge.counts, kind="rouge1"), rouge.value, "higher", 1),
    "rouge2": TextMetric(partial(rouge.counts, kind="rouge2"), rouge.value, "higher", 1),
    "rougeL": TextMetric(partial(rouge.counts, kind="rougeL"), rouge.value, "higher", 1),
    "exact_match": TextMetric(partial(answers.counts, kind="exact_match"), answers.value, "higher", 1),
    "f1": TextMetric(partial(answers.counts, kind="f1"), answers.value, "higher", 1),
    "wer": TextMetric(partial(edits.counts, unit="words"), edits.value, "lower", 0),
    "cer": TextMetric(partial(edits.counts, unit="characters"), edits.value, "lower", 0),
}
