"""How a text is cut into words, and how many true texts a row has.

Languages: `en` cuts as the reference tools do; `zh` by character (other letters and digits in runs), so no segmenter
has a say in the figure; `zh-words` by the words of jieba. Texts are taken as they are: no width or script is folded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any, Literal

from luodi.core.catalog import require
from luodi.core.errors import LuodiError

Language = Literal["en", "zh", "zh-words"]
Truth = str | Sequence[str]  # one true text, or several that are equally right

# Ideographs of every plane, iteration marks, kana and bopomofo: what is written without spaces.
_UNSPACED = "\u3005-\u3007\u3040-\u312f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af"
UNSPACED = re.compile(rf"[{_UNSPACED}]")
_CHARACTERS = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+|[^\w\s]|_")
_ALONE = re.compile(rf"[{_UNSPACED}]")
_ENGLISH = re.compile(r"[a-z0-9]+")


def language_of(texts: Iterable[str]) -> Language:
    """`zh` where more of the letters are of a script without spaces than of others, else `en`."""
    found = [piece for text in texts for piece in _CHARACTERS.findall(text) if piece.isalnum()]
    unspaced = sum(bool(_ALONE.match(piece)) for piece in found)
    return "zh" if 2 * unspaced > len(found) else "en"


def pieces(text: str, language: Language) -> list[str]:
    """The text in pieces, marks and capitals kept, spaces left out; English is cut at its spaces alone."""
    if language == "en":
        return text.split()
    if language == "zh":
        return _CHARACTERS.findall(text)
    return list(_segmented(text))


def words(text: str, language: Language) -> list[str]:
    """Words in small letters without marks; of English only a-z and 0-9 stay, as in ROUGE-1.5.5 (Lin 2004)."""
    if language == "en":
        return _ENGLISH.findall(text.lower())
    return [piece for piece in pieces(text.lower(), language) if any(map(str.isalnum, piece))]


@lru_cache(2**15)  # a segmenter takes longer than a metric, and an exam has several metrics of the same texts
def _segmented(text: str) -> tuple[str, ...]:
    return tuple(piece for piece in _segmenter().lcut(text) if not piece.isspace())


@cache
def _segmenter() -> Any:
    """jieba's tokenizer with its own dictionary, made without the marshalled cache it would keep in a shared folder."""
    segmenter = require("jieba", "text").Tokenizer()
    segmenter.FREQ, segmenter.total = segmenter.gen_pfdict(segmenter.get_dict_file())
    segmenter.initialized = True
    return segmenter


def paired(answers: Sequence[str], truths: Sequence[Truth]) -> list[tuple[str, tuple[str, ...]]]:
    """Every answer with its true texts; raises LuodiError where a row has none, or the two are of different lengths."""
    if len(answers) != len(truths):
        raise LuodiError(f"{len(answers)} answers, but {len(truths)} truths: every row needs both")
    found = []
    for row, (answer, truth) in enumerate(zip(answers, truths, strict=True)):
        several = (truth,) if isinstance(truth, str) else tuple(truth)
        if not several:
            raise LuodiError(f"row {row} has no true text: leave the row out, or give an empty text")
        found.append((answer, several))
    return found


def single(answers: Sequence[str], truths: Sequence[Truth], metric: str) -> list[tuple[str, str]]:
    """Every answer with its one true text; raises LuodiError where a row has several."""
    found = []
    for row, (answer, several) in enumerate(paired(answers, truths)):
        if len(several) > 1:
            raise LuodiError(
                f"row {row} has {len(several)} true texts: {metric} takes one; rouge, chrf, bleu take several"
            )
        found.append((answer, several[0]))
    return found
