"""Texts that say the same in English and in Chinese, as Arrow tables."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import pyarrow as pa

from luodi.data.samples.package import Sample
from luodi.data.samples.texts import in_columns

MARKUP = re.compile(r"<(/?)(\w+)([^>]*?)(/?)>|([^<]+)")
KIND = re.compile(r'class="([^"]*)"')
LEFT_OUT = ("url", "programlisting", "screen")  # inside a paragraph: addresses and listings, equal in every language
HAN = re.compile(r"[\u4e00-\u9fff]")
WORD = re.compile(r"[A-Za-z][A-Za-z'-]+")
NUMBER = re.compile(r"\d\d+")
# Han characters and Latin words of a translation to English words: 98 of 100 paragraphs lie between.
SHORTEST, LONGEST, FEW = 0.9, 2.3, 5
SAME = 0.8  # of the Latin words in the translation, names and commands, are in the original: others are of an older one


def cldr(sample: Sample, files: Mapping[str, bytes]) -> pa.Table:
    """The columns character, english and chinese: the short name of each character that both languages name."""
    english, chinese = (json.loads(files[path])["annotations"]["annotations"] for path in sample.members)
    both = [one for one in english if "tts" in english[one] and "tts" in chinese.get(one, {})]
    return in_columns(sample, [(one, english[one]["tts"][0], chinese[one]["tts"][0]) for one in both])


def handbook(sample: Sample, files: Mapping[str, bytes]) -> pa.Table:
    """The columns page, english and chinese. A page counts if its paragraphs are nested alike in both languages, a
    paragraph if it is translated wholly: as long as translations are, with the same numbers and names."""
    ours, theirs = (str(PurePosixPath(path).parent) for path in sample.members)
    rows = []
    for path in sorted(path for path in files if path.startswith(ours)):
        name = PurePosixPath(path).name
        english, chinese = (list(paragraphs(files[f"{folder}/{name}"].decode())) for folder in (ours, theirs))
        if [place for place, _ in english] == [place for place, _ in chinese]:
            pairs = ((one, other) for (_, one), (_, other) in zip(english, chinese, strict=True))
            rows += [(PurePosixPath(name).stem, *pair) for pair in pairs if translated(*pair)]
    return in_columns(sample, dict.fromkeys(rows))


def translated(english: str, chinese: str) -> bool:
    """Whether the second is the first in Chinese: paragraphs that nobody translated are there in English."""
    han, words = len(HAN.findall(chinese)), WORD.findall(english.lower())
    latin = WORD.findall(chinese.lower())
    likely = len(words) <= FEW or SHORTEST * len(words) <= han + len(latin) <= LONGEST * len(words)
    same = sum(word in words for word in latin) >= SAME * len(latin) and _numbers(english) == _numbers(chinese)
    return bool(words) and 2 * len(latin) <= han and likely and same


def _numbers(text: str) -> set[str]:
    """Of two digits and more: small ones are often written out."""
    return set(NUMBER.findall(text))


def paragraphs(page: str) -> Iterator[tuple[str, str]]:
    """Place and text of each `<div class="para">` of an XHTML page, in the order of their beginnings; a paragraph
    inside another is none of its text."""
    found: list[tuple[str, list[str]]] = []
    nested: list[tuple[str, int]] = []  # open elements, and which paragraph each is in
    for end, tag, attributes, alone, words in MARKUP.findall(page[page.index("<body") :]):
        inside = nested[-1][1] if nested else -1
        if words and inside >= 0:
            found[inside][1].append(words)
        elif end:
            nested.pop()
        elif tag and not alone:
            kind = KIND.search(attributes)
            name = kind[1] if kind else tag
            if name == "para":
                found.append(("/".join(_places(nested)), []))
                inside = len(found) - 1
            nested.append((name, -1 if name in LEFT_OUT else inside))
        if not nested:
            break
    for place, texts in found:
        yield place, re.sub(r"\s+", " ", html.unescape("".join(texts))).strip()


def _places(nested: Sequence[tuple[str, int]]) -> list[str]:
    return [name for name, _ in nested]
