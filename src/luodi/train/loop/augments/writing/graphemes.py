"""Texts taken apart where a reader would: never within a character that is seen as one."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Literal

Unit = Literal["character", "word"]

JOINER = 0x200D
REGIONAL = range(0x1F1E6, 0x1F200)  # two of them are a flag
# Leading, vowel and trailing parts of Korean syllables, and whole syllables.
LEADING = (range(0x1100, 0x1160), range(0xA960, 0xA97D))
VOWELS = (range(0x1160, 0x11A8), range(0xD7B0, 0xD7C7), range(0x16D63, 0x16D64), range(0x16D67, 0x16D6B))
TRAILING = (range(0x11A8, 0x1200), range(0xD7CB, 0xD7FC))
SYLLABLES = range(0xAC00, 0xD7A4)
# Extends what stands before it, by its place rather than by its category.
EXTENDS = (
    range(0x1F3FB, 0x1F400), range(0xE0020, 0xE0080), range(0x200C, 0x200E), range(0xFF9E, 0xFFA0),
    range(0x0E33, 0x0E34), range(0x0EB3, 0x0EB4),
)  # fmt: skip
PICTURES = range(0x1F000, 0x1FC00)
# Extended by what comes after it.
PREPENDED = frozenset(
    (0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2, 0x0D4E, 0x110BD, 0x110CD, 0x111C2, 0x111C3, 0x113D1, 0x1193F, 0x11941)
) | frozenset((*range(0x0600, 0x0606), 0x11A3A, *range(0x11A84, 0x11A8A), 0x11D46, 0x11F02))  # fmt: skip
# Written without spaces: each one is a word of its own here. Han, kana, bopomofo.
ALONE = (
    range(0x2E80, 0x2FE0), range(0x3005, 0x3008), range(0x3021, 0x302A), range(0x3040, 0x3130), range(0x31A0, 0x31C0),
    range(0x31F0, 0x3200), range(0x3400, 0x4DC0), range(0x4E00, 0xA000), range(0xF900, 0xFB00), range(0xFF66, 0xFF9E),
    range(0x1B000, 0x1B170), range(0x20000, 0x40000),
)  # fmt: skip


def graphemes(text: str) -> list[str]:
    """The characters that a reader sees, which together are the text: close to Unicode's UAX 29, and never finer.

    Accents, emoji sequences, flags, Korean and Indic syllables, CR LF and both halves of a surrogate pair stay whole.
    """
    if text.isascii() and "\r" not in text:
        return list(text)
    found: list[str] = []
    for character in text:
        if found and _joined(found[-1], character):
            found[-1] += character
        else:
            found.append(character)
    return found


def pieces(text: str, unit: Unit) -> list[str]:
    """Characters as seen, or words; together they are the text.

    A word is a run of letters and digits, with apostrophes within; a Han character, kana, mark or space is one alone.
    """
    seen = graphemes(text)
    if unit == "character":
        return seen
    found: list[str] = []
    for place, one in enumerate(seen):
        within = one in "'’" and place + 1 < len(seen) and _in_word(seen[place + 1])
        if found and _in_word(found[-1]) and (_in_word(one) or within):
            found[-1] += one
        else:
            found.append(one)
    return found


def changeable(piece: str) -> bool:
    """Whether a piece is something to read: no space, no control character."""
    return not piece.isspace() and unicodedata.category(piece[0]) != "Cc"


def class_of(piece: str) -> str:
    """What a piece may be taken for: Han and kana by script, letters by case, digits, marks."""
    first = piece[0]
    if alone(first):
        return "kana" if 0x3040 <= ord(first) < 0x3100 else "han"
    if first.isdigit():
        return "digit"
    if first.isalpha():
        latin = "latin" if ord(first) < 0x250 else unicodedata.name(first, "").split(" ")[0]
        return f"{latin} {'upper' if first.isupper() else 'lower'}"
    return unicodedata.category(first)


def alone(character: str) -> bool:
    """Whether it is written without spaces around words."""
    return _within(ord(character), ALONE)


def _in_word(piece: str) -> bool:
    return piece[0].isalnum() and not alone(piece[0])


def _joined(before: str, character: str) -> bool:
    """Whether a character belongs to the cluster before it."""
    last, now = ord(before[-1]), ord(character)
    if (before[-1], character) == ("\r", "\n"):
        return True
    category = unicodedata.category(character)
    if _controls(last, unicodedata.category(before[-1])) or _controls(now, category):
        return False
    if category in ("Mn", "Me", "Mc") or _within(now, EXTENDS) or last in PREPENDED:
        return True
    if last == JOINER and not character.isspace():  # coarser than the standard, which wants a pictograph on both sides
        return True
    if category == "Cn":  # newer than this Python's tables: it may well be an accent
        return now not in PICTURES and not alone(character)
    if unicodedata.combining(before[-1]) == 9 and category.startswith("L"):  # an Indic consonant without its vowel
        return True
    if 0xD800 <= last < 0xDC00 <= now < 0xE000:
        return True
    if now in REGIONAL and last in REGIONAL:
        return _odd_flags(before)
    return _korean(last, now)


def _odd_flags(before: str) -> bool:
    return sum(1 for _ in _last_flags(before)) % 2 == 1


def _last_flags(before: str) -> Iterator[str]:
    for character in reversed(before):
        if ord(character) not in REGIONAL:
            return
        yield character


def _korean(last: int, now: int) -> bool:
    if _within(last, LEADING):
        return _within(now, LEADING) or _within(now, VOWELS) or now in SYLLABLES
    opened = last in SYLLABLES and (last - SYLLABLES.start) % 28 == 0
    if _within(last, VOWELS) or opened:
        return _within(now, VOWELS) or _within(now, TRAILING)
    return (last in SYLLABLES or _within(last, TRAILING)) and _within(now, TRAILING)


def _controls(code: int, category: str) -> bool:
    if category in ("Cc", "Zl", "Zp"):
        return True
    return category == "Cf" and not _within(code, EXTENDS) and code not in PREPENDED


def _within(code: int, ranges: tuple[range, ...]) -> bool:
    return any(code in one for one in ranges)
