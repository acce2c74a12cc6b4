"""Word and character error rate: edits (Levenshtein 1966) per true word or character, as jiwer has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from luodi.fields.wording.segments import Language, Truth, pieces, single

Unit = Literal["words", "characters"]


def counts(answers: Sequence[str], truths: Sequence[Truth], language: Language, unit: Unit) -> np.ndarray:
    """(rows, 2) int64: edits that turn the answer into the true text, and units of the true text.

    Words are what stands between spaces, in `zh` characters and runs of other letters, in `zh-words` jieba's words.
    Characters are code points, the spaces between words too; in Chinese spaces are none.
    """
    rows = single(answers, truths, "wer" if unit == "words" else "cer")
    found = np.zeros((len(rows), 2), np.int64)
    for row, (answer, truth) in enumerate(rows):
        mine, theirs = _units(answer, language, unit), _units(truth, language, unit)
        found[row] = distance(mine, theirs), len(theirs)
    return found


def value(total: np.ndarray) -> float:
    """Edits per unit of the true texts, 0 or more (an answer too long goes over 1); without any unit, the edits."""
    return float(total[0] / (total[1] or 1))


def _units(text: str, language: Language, unit: Unit) -> Sequence[str]:
    if unit == "words":
        return pieces(text, language)
    return text.strip() if language == "en" else "".join(text.split())


def distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Insertions, deletions and substitutions at least, a whole row of the table at once in the bits of a number.

    Myers 1999, doi:10.1145/316542.316550, in Hyyrö's form (2003): `up` and `down` mark where a row's neighbours differ.
    """
    if not first:
        return len(second)
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    whole, last = (1 << len(first)) - 1, 1 << (len(first) - 1)
    up, down, edits = whole, 0, len(first)
    for word in second:
        same = places.get(word, 0)
        kept = same | down
        same = (((same & up) + up) ^ up) | same
        rises, falls = down | (whole & ~(same | up)), up & same
        edits += bool(rises & last) - bool(falls & last)
        rises, falls = rises << 1 | 1, falls << 1
        up, down = (falls | ~(kept | rises)) & whole, rises & kept & whole
    return edits
