"""chrF (Popović 2015, doi:10.18653/v1/W15-3049) and chrF++ (Popović 2017, doi:10.18653/v1/W17-4770).

Character n-grams need no words: the metric of a language written without spaces. Values are those of sacrebleu.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from string import punctuation
from typing import Literal

import numpy as np

from luodi.fields.wording.segments import Language, Truth, paired, pieces

ORDERS = 6  # characters of the longest n-gram
BETA_SQUARED = 4  # recall weighs twice precision


def counts(answers: Sequence[str], truths: Sequence[Truth], language: Language, words: Literal[0, 2] = 0) -> np.ndarray:
    """(rows, 3 * (6 + words)) int64: for every order n-grams answered, true, and right, against the best true text.

    Spaces are no characters. `words` 2 is chrF++: words are what stands between spaces, in `zh-words` jieba's.
    """
    found = np.zeros((len(answers), 3 * (ORDERS + words)), np.int64)
    for row, (answer, several) in enumerate(paired(answers, truths)):
        mine = _grams(answer, language, words)
        tries = [_matches(mine, _grams(truth, language, words)) for truth in several]
        found[row] = max(tries, key=value) if len(tries) > 1 else tries[0]  # the first of equals
    return found


def _grams(text: str, language: Language, words: int) -> list[Counter[str]]:
    joined = "".join(text.split())
    found = [Counter(joined[i : i + n] for i in range(len(joined) - n + 1)) for n in range(1, ORDERS + 1)]
    if words:
        tokens = _tokens(" ".join(pieces(text, "zh-words")) if language == "zh-words" else text)
        found += [Counter(" ".join(tokens[i : i + n]) for i in range(len(tokens) - n + 1)) for n in range(1, words + 1)]
    return found


def _tokens(text: str) -> list[str]:
    """Words, one mark at the end or else at the start taken off: as chrF++ does."""
    found: list[str] = []
    for word in text.split():
        if len(word) > 1 and word[-1] in punctuation:
            found += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in punctuation:
            found += [word[0], word[1:]]
        else:
            found.append(word)
    return found


def _matches(mine: list[Counter[str]], theirs: list[Counter[str]]) -> np.ndarray:
    found = []
    for answered, true in zip(mine, theirs, strict=True):
        right = sum(min(count, true[gram]) for gram, count in answered.items() if gram in true)
        # An order that the true text is too short for cannot be got right, so it is not held against the answer.
        found += [answered.total() if true else 0, true.total(), right]
    return np.array(found, np.int64)


def value(total: np.ndarray) -> float:
    """chrF, 0 to 100, of summed counts: the F2 of precision and recall, each a mean over the orders both sides have."""
    precisions, recalls = [], []
    for answered, true, right in total.reshape(-1, 3).tolist():
        if answered and true:
            precisions.append(right / answered)
            recalls.append(right / true)
    if not any(precisions):
        return 0.0
    # Added up in sacrebleu's order: two true texts that are equally near must stay so, and the first be taken.
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 100 * ((1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall))
