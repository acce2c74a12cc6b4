"""Exact match and F1 of short answers: SQuAD 2.0 (arXiv 1806.03822), for Chinese CMRC 2018 (arXiv 1810.07366)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from string import punctuation
from typing import Literal

import numpy as np

from luodi.fields.wording.segments import Language, Truth, paired, pieces, words

Kind = Literal["exact_match", "f1"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ENGLISH_MARKS = dict.fromkeys(map(ord, punctuation))
# The marks that CMRC 2018 leaves out; full stop, comma and brackets of ASCII are not among them.
_CHINESE_MARKS = dict.fromkeys(map(ord, "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"))


def counts(answers: Sequence[str], truths: Sequence[Truth], language: Language, kind: Kind) -> np.ndarray:
    """(rows, 2) float64: the row's figure against its best true text, 0 to 1, and 1.

    English texts that hold nothing (articles, marks) are true only where a row has no other. Nothing answered to
    nothing is right, in Chinese too (the script of CMRC, which has no such rows, gives it an F1 of 0).
    """
    score = _exact if kind == "exact_match" else _f1
    found = np.ones((len(answers), 2))
    for row, (answer, several) in enumerate(paired(answers, truths)):
        if language == "en":
            several = [truth for truth in several if normal(truth, language)] or [""]
        found[row, 0] = max(score(answer, truth, language) for truth in several)
    return found


def value(total: np.ndarray) -> float:
    """The mean over rows, 0 to 1 (the official scripts print 100 times that), of summed counts; NaN of no rows."""
    return float(total[0] / total[1]) if total[1] else float("nan")


def normal(text: str, language: Language) -> str:
    """Small letters, no marks; in English no articles either, and one space between words."""
    if language == "en":
        return " ".join(_ARTICLES.sub(" ", text.lower().translate(_ENGLISH_MARKS)).split())
    return text.lower().strip().translate(_CHINESE_MARKS)


def _exact(answer: str, truth: str, language: Language) -> float:
    return float(normal(answer, language) == normal(truth, language))


def _f1(answer: str, truth: str, language: Language) -> float:
    """English and `zh-words`: words in common, in any order. `zh`: the longest run of characters in common."""
    if language == "zh-words":
        mine, theirs = words(answer, language), words(truth, language)
    else:
        mine, theirs = pieces(normal(answer, language), language), pieces(normal(truth, language), language)
    if not mine or not theirs:
        return float(mine == theirs)
    if language == "zh":
        same = SequenceMatcher(None, mine, theirs, autojunk=False).find_longest_match().size
    else:
        same = (Counter(mine) & Counter(theirs)).total()
    return 2 * same / (len(mine) + len(theirs))
