"""Words that give the answer away, taken out of texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from luodi.core.apply import recorded
from luodi.core.errors import LuodiError, nearest
from luodi.core.step import Step
from luodi.core.thing import ModelConfig
from luodi.data.columns.fields import fields, kind, texts
from luodi.data.columns.rewritten import rewritten

if TYPE_CHECKING:
    from luodi.core.bundle import Bundle
    from luodi.core.rows import Rows
    from luodi.core.run import Run
    from luodi.core.task import Task

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
SPACED = re.compile(
    r"[a-zA-Z\u00c0-\u024f\u0370-\u052f]"
)  # Latin, Greek and Cyrillic letters: words have spaces around


class MaskWords(Step):
    """Takes words out of texts: what is left says how much of a score they were.

    The words are those of `words`, and all that occur in the columns `of` (a label, a folder: "food/fruit"). Each is
    taken out of every text, whatever the row's own label is. A word in letters is found whole, in any case, as one or
    many (berry, berries); Chinese, Japanese and Korean, which write no spaces, anywhere in the text. Rows keep their
    identity and so their place in a split. Only rows change: what a server is asked stays whole.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"rows"})
    excludes: ClassVar[frozenset[str]] = frozenset({"model"})
    keeps: ClassVar[Literal["answers", "shape", "nothing"]] = "answers"

    columns: tuple[str, ...] = ()  # texts; empty: every text that the task is given
    words: tuple[str, ...] = ()
    of: tuple[str, ...] = ()  # columns whose words are taken out
    mask: str = ""  # what stands in their place

    @model_validator(mode="after")
    def _some(self) -> MaskWords:
        if any(not word.strip() for word in self.words):
            raise ValueError("an empty word is everywhere")
        return self

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        return None if self.columns or _texts(task) else "words are taken out of texts, and no input is one"

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        assert bundle.data is not None
        splits = dict(bundle.data.splits)
        columns = self.columns or _texts(bundle.task)
        self._check(next(iter(splits.values())), (*columns, *self.of))
        words = self._words(splits.values())
        if not words:
            return bundle.noting(told=["no words to take out"])
        counts: Counter[str] = Counter()
        changed = 0
        pattern = pattern_of(words)
        for part, rows in splits.items():
            touched = set()
            for column in columns:
                before = rows.column(column)
                after = [masked(text, pattern, self.mask, counts) for text in before]
                touched |= {place for place, text in enumerate(before) if text != after[place]}
                rows = rewritten(rows, column, after)
            splits[part] = rows
            changed += len(touched)
        again = self.model_copy(update={"columns": tuple(columns), "words": tuple(words), "of": ()})
        data = recorded(replace(bundle.data, splits=splits), again, run)
        count = sum(map(len, splits.values()))
        told = f"{sum(counts.values()):,} words taken out of {changed:,} of {count:,} rows"
        return bundle.replace(data=data).noting(words=dict(counts.most_common(50)), changed=changed, told=[told])

    def _words(self, parts: Iterable[Rows]) -> list[str]:
        """Named and found, without repeats; of a path or a sentence each word."""
        found = dict.fromkeys(self.words)
        for rows in parts if self.of else ():
            for column in self.of:
                found |= dict.fromkeys(word for text in sorted(set(texts(rows, column))) for word in WORD.findall(text))
        return list(found)

    def _check(self, rows: Rows, names: Iterable[str]) -> None:
        for name in names:
            if name not in rows.columns:
                raise LuodiError(f"mask_words: no column {name!r}; {nearest(name, rows.columns)}")


def masked(text: str, pattern: re.Pattern[str], mask: str, counts: Counter[str]) -> str:
    """The text without the words, and without the spaces that they leave; what was found is counted."""
    if not isinstance(text, str):
        return text
    found = pattern.findall(text)
    counts.update(one.lower() for one in found)
    return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(pattern.sub(mask, text).split())) if found else text


def pattern_of(words: Iterable[str]) -> re.Pattern[str]:
    """What finds any of the words."""
    return re.compile(
        "|".join(_one(word) for word in sorted(words, key=lambda word: (-len(word), word))), re.IGNORECASE
    )


def _one(word: str) -> str:
    if not SPACED.search(word):
        return re.escape(word)
    stem = _singular(word)
    ends = f"(?:{re.escape(stem[:-1])}ies|{re.escape(stem)})" if stem.endswith("y") else re.escape(stem)
    return rf"\b{ends}(?:s|es)?\b"


def _singular(word: str) -> str:
    low = word.lower()
    if len(low) > 4 and low.endswith("ies"):
        return word[:-3] + "y"
    if len(low) > 4 and low.endswith(("ses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if len(low) > 3 and low.endswith("s") and not low.endswith("ss") else word


def _texts(task: Task) -> tuple[str, ...]:
    return tuple(name for name, field in fields(task, "inputs").items() if kind(field) == "text")
