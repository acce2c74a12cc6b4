"""What cuts a text into token ids and joins ids into text, made from a learned asset."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from luodi.core.catalog import require
from luodi.core.errors import LuodiError
from luodi.fields.texts.units import counted, words

PAD, UNKNOWN, START, END = "<pad>", "<unknown>", "<start>", "<end>"
MARKS = "luodi"  # the key of a tokenizer.json under which its padding and its ends are kept
Span = tuple[int, int, int]  # a token's id, its first character, the one after its last
SPECIAL = (PAD, UNKNOWN, START, END)  # the first ids of what is learned here


class Cutter(Protocol):
    """Texts to ids and back. `frame` is what goes before and after a text, `ends` are the ids that end one."""

    @property
    def pad(self) -> int: ...

    @property
    def frame(self) -> tuple[Sequence[int], Sequence[int]]: ...

    @property
    def pair(self) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """What goes before, between and after two texts that are read together."""
        ...

    @property
    def ends(self) -> tuple[int, ...]: ...

    @property
    def never(self) -> tuple[int, ...]:
        """Ids that are no text and end none: they are never written."""
        ...

    @property
    def blank(self) -> int:
        """What stands for a text that has no token."""
        ...

    @property
    def size(self) -> int: ...

    def ids(self, texts: Sequence[str], *, marked: bool = False) -> list[list[int]]:
        """Ids of each text, nothing added or cut; `marked`: the names of marks in them are marks, not text."""
        ...

    def spans(self, text: str) -> list[Span]:
        """The tokens of a text, nothing added or cut, and which characters each stands for."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """The text of these ids, marks left out."""
        ...

    def unit(self, token: int) -> str:
        """How one token is shown to a reader."""
        ...


class Listed:
    """Characters or words from a list, by their place in it."""

    pad, frame, ends, blank, never = 0, ((2,), (3,)), (3,), 1, (0, 1, 2)
    pair = ((2,), (3,), (3,))

    def __init__(self, content: bytes) -> None:
        held = json.loads(content)
        self.units, self.whole = held["units"], held["kind"] == "word"
        self.known = {unit: place for place, unit in enumerate(self.units)}

    @classmethod
    def learned(cls, texts: Iterable[str], kind: str, most: int, at_least: int) -> bytes:
        """The list as an asset's content."""
        cut = words if kind == "word" else iter
        found = counted((cut(text) for text in texts), max(most - len(SPECIAL), 0), at_least)
        whole = [*SPECIAL, *(unit for unit in found if unit not in SPECIAL)]
        return json.dumps({"kind": kind, "units": whole}, ensure_ascii=False).encode()

    @property
    def size(self) -> int:
        return len(self.units)

    def ids(self, texts: Sequence[str], *, marked: bool = False) -> list[list[int]]:
        known, cut = self.known, words if self.whole else iter
        return [[known.get(unit, 1) for unit in cut(text)] for text in texts]

    def spans(self, text: str) -> list[Span]:
        found: list[Span] = []
        for unit in words(text) if self.whole else text:
            start = text.index(unit, found[-1][2] if found else 0)
            found.append((self.known.get(unit, 1), start, start + len(unit)))
        return found

    def text(self, ids: Sequence[int]) -> str:
        found = [
            self.units[token] if token != 1 else "\N{REPLACEMENT CHARACTER}" for token in ids if token not in (0, 2, 3)
        ]
        return (" " if self.whole else "").join(found)

    def unit(self, token: int) -> str:
        return self.units[token]


class Tokenized:
    """Pieces of a tokenizer.json (byte-pair or unigram): learned here, or that of a pretrained model."""

    never: tuple[int, ...] = ()  # a pretrained model may write what it was taught to

    def __init__(self, content: bytes) -> None:
        kind = require("tokenizers", "text").Tokenizer
        held = json.loads(content)
        marks = held.pop(MARKS, {})
        self.inner: Any = kind.from_str(json.dumps(held, ensure_ascii=False) if marks else content.decode())
        self.inner.no_padding()
        self.inner.no_truncation()
        self.size: int = max(self.inner.get_vocab().values(), default=-1) + 1  # ids may have gaps
        self.pad: int = marks.get("pad", 0)
        self.ends = tuple(marks.get("ends", ()))
        self.blank: int = marks.get("blank", self.ends[0] if self.ends else self.pad)
        self.frame = self._frame()
        self.pair = self._pair()
        marked = [token.content for token in self.inner.get_added_tokens_decoder().values() if token.special]
        self.forged = re.compile("|".join(map(re.escape, sorted(marked, key=len, reverse=True))) or r"(?!)")

    def ids(self, texts: Sequence[str], *, marked: bool = False) -> list[list[int]]:
        if marked or not any(map(self.forged.search, texts)):
            return self._ids(texts)
        # "</s>" in a request is text, only we put marks in: cut inside its name, it is none.
        return [[token for ids in self._ids(list(self._apart(text))) for token in ids] for text in texts]

    def spans(self, text: str) -> list[Span]:
        found: list[Span] = []
        start = 0
        for piece in self._apart(text):
            cut = self.inner.encode(piece, add_special_tokens=False)
            found += [
                (token, start + first, start + end) for token, (first, end) in zip(cut.ids, cut.offsets, strict=True)
            ]
            start += len(piece)
        return found

    def _apart(self, text: str) -> Iterator[str]:
        """The text in pieces of which none holds the name of a mark."""
        start = 0
        for mark in self.forged.finditer(text):
            yield text[start : mark.start() + 1]
            start = mark.start() + 1
        yield text[start:]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in self.inner.encode_batch(list(texts), add_special_tokens=False)]

    def _frame(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and after a text."""
        bare = self.inner.encode("a", add_special_tokens=False).ids
        whole = self.inner.encode("a", add_special_tokens=True).ids
        for at in range(len(whole) - len(bare) + 1):
            if whole[at : at + len(bare)] == bare:
                return whole[:at], whole[at + len(bare) :]
        raise LuodiError("this tokenizer changes a text's own tokens when it marks the start and the end")

    def _pair(self) -> tuple[list[int], list[int], list[int]]:
        """What the tokenizer puts around and between two texts; one that knows no pairs ends each as it ends one."""
        first, second = (self.inner.encode(text, add_special_tokens=False).ids for text in ("a", "b"))
        whole = self.inner.encode("a", "b", add_special_tokens=True).ids
        before = self.frame[0]
        at = len(before) + len(first)
        for place in range(at + 1, len(whole) - len(second) + 1):
            if whole[place : place + len(second)] == second and whole[len(before) : at] == first:
                return before, whole[at:place], whole[place + len(second) :]
        return before, self.frame[1], self.frame[1]

    def text(self, ids: Sequence[int]) -> str:
        return self.inner.decode(list(ids), skip_special_tokens=True)

    def unit(self, token: int) -> str:
        return self.inner.decode([token], skip_special_tokens=False) or self.inner.id_to_token(token) or ""


def learned_pieces(texts: Iterable[str], kind: str, most: int, at_least: int) -> bytes:
    """A byte-pair (bytes, so that nothing is unknown) or unigram tokenizer.json learned from these texts."""
    library = require("tokenizers", "text")
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    if kind == "bpe":
        made = library.Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=most, min_frequency=at_least, special_tokens=list(SPECIAL), show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )  # fmt: skip
    else:
        made = library.Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=most, special_tokens=list(SPECIAL), unk_token=UNKNOWN, show_progress=False
        )
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, 2), (END, 3)]
    )
    held = json.loads(made.to_str())
    held[MARKS] = {"pad": 0, "ends": [3], "blank": 1}
    return json.dumps(held, ensure_ascii=False).encode()


def cutter_of(kind: str, content: bytes) -> Cutter:
    """The cutter of an asset's content."""
    return Listed(content) if kind in ("character", "word") else Tokenized(content)
