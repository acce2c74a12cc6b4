"""A text column."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field as Bounded
from pydantic import model_validator

from luodi.core.asset import Asset
from luodi.core.errors import BadRequest, LuodiError
from luodi.core.field import Field
from luodi.core.spec import Arrays, Spec
from luodi.core.thing import Json
from luodi.fields.texts.cutters import MARKS, SPECIAL, Cutter, Listed, Span, cutter_of, learned_pieces
from luodi.fields.texts.made import made
from luodi.fields.texts.published import published
from luodi.fields.texts.units import Forms, settled

AXIS = "length"  # tokens of a text: free


class Text(Field):
    """Texts in any language, cut into tokens that are learned on the training split or come with pretrained weights.

    A value is a str. Encoded: int64 (batch, length), the ids, padded to the longest of the batch, and `_mask` int64
    (batch, length), 1 where a token is. Chinese words are cut by jieba; characters are code points; byte-pair pieces
    know every text. An empty text is its marks alone, or one token: the unknown one, a pretrained tokenizer's end.
    """

    kind: ClassVar[str] = "text"

    tokens: Literal["character", "word", "bpe", "unigram", "pretrained"] = "word"
    length: Annotated[int, Bounded(ge=2)] = 256  # most tokens of a text, its marks counted; longer ones are cut
    cut: Literal["end", "start"] = "end"  # which side of a text that is too long goes away
    vocabulary: Annotated[int, Bounded(ge=8)] = 20_000  # most tokens that are learned
    at_least: Annotated[int, Bounded(ge=1)] = 2  # occurrences in the training rows that make a token
    forms: Forms = "nfkc"  # Unicode: nfkc makes full-width letters and digits plain ones
    case: Literal["keep", "lower"] = "lower"
    marks: bool = False  # a start and an end around each text
    prefix: str = ""  # put before each text, as some pretrained models want it ("query: ")
    max_characters: Annotated[int, Bounded(ge=1)] = 1_000_000  # of a request; longer ones are refused
    learned: Asset | None = None  # the list of tokens, or a tokenizer.json

    @model_validator(mode="after")
    def _own_ways(self) -> Self:
        if self.tokens == "pretrained":
            for name, default in (("forms", "nfkc"), ("case", "lower"), ("marks", False)):
                if getattr(self, name) != default:
                    raise ValueError(f"`{name}` is the pretrained tokenizer's own: leave it out")
        return self

    def fit(self, column: Iterable[Any]) -> Self:
        if self.learned is not None:
            return self
        if self.tokens == "pretrained":
            raise LuodiError("tokens: pretrained come with weights; put a step before: pretrained: {weights: ...}")
        texts = (self.settled(self.read(cell)) for cell in column)
        if self.tokens in ("character", "word"):
            content = Listed.learned(texts, self.tokens, self.vocabulary, self.at_least)
        else:
            content = learned_pieces(texts, self.tokens, self.vocabulary, self.at_least)
        if cutter_of(self.tokens, content).size <= len(SPECIAL):
            raise LuodiError(f"no {self.tokens} occurs {self.at_least} times in the training rows")
        return self.model_copy(update={"learned": Asset.of(content)})

    def given(self, tokenizer: bytes, pad: int, ends: Sequence[int], names: Mapping[str, str]) -> Self:
        """A copy that cuts with this tokenizer.json, which came with weights; `names` are those of its marks."""
        held = json.loads(tokenizer)
        held[MARKS] = {"pad": pad, "ends": list(ends), "names": dict(names)}
        return self.model_copy(update={"learned": Asset.of(json.dumps(held, ensure_ascii=False).encode())})

    def published(self, *, prompts: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """(tokenizer.json, tokenizer_config.json) that cut as this field does; a `prefix` is left to who asks.

        `prompts`: of the marks only the first ones are put around a text. Raises LuodiError for words, cut by jieba.
        """
        return published(self, prompts=prompts)

    def specs(self) -> dict[str, Spec]:
        cutter = self.cutter
        return {
            "": Spec(
                kind="tokens", shape=(AXIS,), size=cutter.size, dtype="int64", pad=cutter.pad, most=self.length
            ),
            "_mask": Spec(kind="mask", shape=(AXIS,), dtype="int64", most=self.length),
        }  # fmt: skip

    def read(self, wire: Json | bytes) -> str:
        if isinstance(wire, bytes):
            try:
                wire = wire.decode("utf-8")
            except UnicodeDecodeError as error:
                raise BadRequest("", f"expected UTF-8 text ({error.reason} at byte {error.start})") from error
        if not isinstance(wire, str):
            raise BadRequest("", "a text is missing" if wire is None else f"expected a text, got {type(wire).__name__}")
        if len(wire) > self.max_characters:
            raise BadRequest("", f"a text of {len(wire)} characters; at most {self.max_characters} are taken")
        try:
            wire.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadRequest("", f"half of a surrogate pair at character {error.start} is no text") from error
        return wire

    def write(self, value: Any) -> Json:
        return value

    def encode(self, values: Sequence[Any]) -> Arrays:
        return self.padded(self.ids(values))

    def padded(self, rows: Sequence[Sequence[int]]) -> Arrays:
        """Ids and mask of rows of ids, as long as the longest."""
        width = max(map(len, rows), default=1)
        ids = np.full((len(rows), width), self.cutter.pad, np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
            mask[place, : len(row)] = 1
        return {"": ids, "_mask": mask}

    def ids(self, values: Sequence[str]) -> list[list[int]]:
        """The ids of each text as the model is given them: settled, marked, cut to `length`, at least one."""
        cutter = self.cutter
        before, after = cutter.frame if self.tokens == "pretrained" or self.marks else ((), ())
        room = self.length - len(before) - len(after)
        found: list[list[int]] = []
        for ids in cutter.ids([self.settled(value) for value in values]):
            kept = ids if len(ids) <= room else ids[:room] if self.cut == "end" else ids[len(ids) - room :]
            found.append([*before, *kept, *after] or [cutter.blank])
        return found

    def spans(self, text: str) -> list[Span]:
        """Every token of a text, nothing added or cut, and the characters [start, end) that it stands for."""
        if self.tokens == "pretrained":
            return self.cutter.spans(text)
        # One character at a time, so that each knows where it came from: accents that stand alone stay alone.
        written = [settled(character, self.forms, self.case) for character in text]
        origin = [place for place, part in enumerate(written) for _ in part]
        return [
            (token, origin[start], origin[end - 1] + 1 if end > start else origin[start])
            for token, start, end in self.cutter.spans("".join(written))
        ]

    def example(self, count: int, seed: int) -> list[str]:
        cutter = self.cutter
        known = [unit for place in range(min(cutter.size, 2000)) if (unit := cutter.unit(place)) not in SPECIAL]
        return made(count, seed, known, self.length, " " if self.tokens == "word" else "")

    def wire_schema(self) -> dict[str, Json]:
        about = f"A text in any language; what lies beyond {self.length} tokens ({self.tokens}) is not looked at."
        return {"type": "string", "maxLength": self.max_characters, "description": about, "examples": ["你好, world"]}

    @property
    def cutter(self) -> Cutter:
        """What cuts and joins; the field is fitted."""
        assert self.learned is not None, "a text field is fitted before it encodes"
        asset, cutter = self._opened
        if asset is not self.learned:  # a copy with another asset took the old one along
            del self.__dict__["_opened"]
            _, cutter = self._opened
        return cutter

    @cached_property
    def _opened(self) -> tuple[Asset | None, Cutter]:
        assert self.learned is not None
        return self.learned, cutter_of(self.tokens, self.learned.content())

    def settled(self, text: str) -> str:
        """The text as it is cut: the prefix, and one way of writing."""
        if self.tokens == "pretrained":
            return self.prefix + text
        return settled(self.prefix + text, self.forms, self.case)
