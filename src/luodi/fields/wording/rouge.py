"""ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004, aclanthology.org/W04-1013), as rouge-score has them, without stemming."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from luodi.fields.wording.segments import Language, Truth, paired, words

Kind = Literal["rouge1", "rouge2", "rougeL"]


def counts(answers: Sequence[str], truths: Sequence[Truth], language: Language, kind: Kind) -> np.ndarray:
    """(rows, 2) float64: the row's F1 against its best true text, and 1."""
    found = np.ones((len(answers), 2))
    for row, (answer, several) in enumerate(paired(answers, truths)):
        mine = words(answer, language)
        found[row, 0] = max(_f1(mine, words(truth, language), kind) for truth in several)
    return found


def value(total: np.ndarray) -> float:
    """The mean F1 over rows, 0 to 1, of summed counts; NaN of no rows."""
    return float(total[0] / total[1]) if total[1] else float("nan")


def _f1(answer: list[str], truth: list[str], kind: Kind) -> float:
    if kind == "rougeL":
        right, answered, true = common(answer, truth), len(answer), len(truth)
    else:
        size = int(kind[-1])
        mine, theirs = _grams(answer, size), _grams(truth, size)
        right, answered, true = (mine & theirs).total(), mine.total(), theirs.total()
    return 2 * right / (answered + true) if right else 0.0


def _grams(tokens: list[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1))


def common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, a whole row of the table at once in the bits of a number.

    Hyyrö 2004, "Bit-parallel LCS-length computation revisited": a bit falls to 0 where the length grows.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    whole = (1 << len(first)) - 1
    row = whole
    for word in second:
        met = row & places.get(word, 0)
        row = ((row + met) | (row - met)) & whole
    return len(first) - row.bit_count()
