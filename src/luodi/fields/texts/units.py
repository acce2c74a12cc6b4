"""Texts cut into characters or words, the same way in training, scoring and serving."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Literal

from luodi.core.catalog import require

Forms = Literal["keep", "nfc", "nfkc"]

# Runs that are cut by jieba: Han characters. Everything else is a word, a number, or a sign of its own.
PIECES = re.compile(r"[㐀-䶿一-鿿豈-﫿\U00020000-\U0003ffff]+|\w+(?:['’]\w+)*|[^\w\s]", re.UNICODE)
HAN = re.compile(r"[㐀-䶿一-鿿豈-﫿\U00020000-\U0003ffff]")


def settled(text: str, forms: Forms, case: Literal["keep", "lower"]) -> str:
    """One way of writing for texts that mean the same: full-width letters, composed accents, case."""
    if forms != "keep":
        text = unicodedata.normalize("NFC" if forms == "nfc" else "NFKC", text)
    return text.lower() if case == "lower" else text


def words(text: str) -> Iterator[str]:
    """Words, numbers and signs, spaces left out; runs of Han characters are cut into words by jieba."""
    for found in PIECES.finditer(text):
        piece = found.group()
        if HAN.match(piece):
            yield from _cutter().cut(piece, HMM=True)
        else:
            yield piece


@cache
def _cutter() -> Any:
    """A tokenizer of our own: the package's global one may hold words that somebody else added."""
    import logging

    cut = require("jieba", "text")
    cut.setLogLevel(logging.WARNING)
    return cut.Tokenizer()


def counted(texts: Iterable[Iterable[str]], most: int, at_least: int) -> list[str]:
    """The units that occur at least so often, the most frequent first; ties in the order of their code points."""
    counts: Counter[str] = Counter()
    for units in texts:
        counts.update(map(sys.intern, units))
    often = [unit for unit, count in counts.items() if count >= at_least]
    return sorted(often, key=lambda unit: (-counts[unit], unit))[:most]
