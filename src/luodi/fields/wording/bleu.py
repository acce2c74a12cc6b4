"""BLEU of a corpus (Papineni et al. 2002, doi:10.3115/1073083.1073135), as sacrebleu counts it (arXiv 1804.08771)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luodi.core.catalog import require
from luodi.fields.wording.segments import Language, Truth, paired, pieces

ORDERS = 4  # words of the longest n-gram
_TOKENIZERS: dict[Language, str] = {"en": "13a", "zh": "zh", "zh-words": "none"}


def counts(answers: Sequence[str], truths: Sequence[Truth], language: Language) -> np.ndarray:
    """(rows, 10) int64: words answered, words of the true text nearest in length, n-grams right (4), answered (4).

    `zh` cuts Chinese by character and the rest as 13a does; `zh-words` takes jieba's words.
    """
    # Effective order matters to the score of a sentence, which is not used: only its counts are.
    scorer = require("sacrebleu", "text").BLEU(tokenize=_TOKENIZERS[language], effective_order=True)
    found = np.zeros((len(answers), 2 + 2 * ORDERS), np.int64)
    for row, (answer, several) in enumerate(paired(answers, truths)):
        if language == "zh-words":
            answer, several = _spaced(answer), tuple(map(_spaced, several))
        score = scorer.sentence_score(answer, several)
        found[row] = (score.sys_len, score.ref_len, *score.counts, *score.totals)
    return found


def _spaced(text: str) -> str:
    return " ".join(pieces(text, "zh-words"))


def value(total: np.ndarray) -> float:
    """BLEU, 0 to 100, of summed counts: `exp` smoothing (the k-th order without a match counts 1/2^k), all orders."""
    answered, true = total[:2].tolist()
    right, tried = total[2 : 2 + ORDERS], total[2 + ORDERS :]
    if not right.any() or not tried.all():
        return 0.0
    missing = right == 0
    share = np.where(missing, 0.5 ** np.cumsum(missing), right) / tried
    brevity = min(1 - true / answered, 0.0)
    return float(100 * np.exp(brevity + np.log(share).mean()))
