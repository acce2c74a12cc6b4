"""One text that is being written, token by token."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from luodi.core.flow import Piece
from luodi.tasks.generation.sampling import Sampling, chosen, whole_part, without

if TYPE_CHECKING:
    from luodi.fields.texts.cutters import Cutter

TAIL = 8  # tokens of the prompt beside which new ones are turned into text


@dataclass(eq=False)
class Writing:
    """One text that is being written; its pieces are {name: {"value": text, "tokens": how many, "read": how many the
    model was given, "finish": "" or why it ended}}."""

    ticket: int
    name: str  # the column of the answer
    cutter: Cutter
    rules: Sampling
    prompt: list[int]
    read: int
    most: int  # tokens
    ends: Collection[int] = ()  # of this request, beside the tokenizer's own
    stops: Sequence[str] = ()  # texts that end it
    ids: list[int] = field(default_factory=list)  # drawn so far
    shown: str = ""
    start: int = 0  # of what the model still sees
    finish: str = ""  # why it ended: "end", "stop", "length"

    @property
    def whole(self) -> list[int]:
        return [*self.prompt, *self.ids]

    @property
    def seen(self) -> list[int]:
        return self.whole[self.start :]

    @property
    def lines(self) -> list[list[int]]:
        """The rows of tokens that go on: one."""
        return [self.whole]

    def forget(self, most: int) -> None:
        """Leaves only its last tokens to be seen."""
        self.start = max(len(self.prompt) + len(self.ids) - most, 0)

    def over(self) -> bool:
        """Whether nothing more is to be written."""
        if len(self.ids) >= self.most:
            self.finish = self.finish or "length"
        return bool(self.finish)

    def go_on(self, logits: Any) -> tuple[Piece, list[int]]:
        """One more token, drawn from logits (1, vocabulary), and the lines that go on: [0], or none at the end."""
        own = without(logits, self.cutter.never)[0]
        token = chosen(own, self.rules, self.whole if self.rules.repetition != 1 else (), len(self.ids))
        piece = self.take(token)
        return piece, [] if self.finish else [0]

    def take(self, token: int) -> Piece:
        """One more token, and what may be shown of the text now."""
        self.ids.append(token)
        if self.is_end(token):
            self.finish = "end"
        text = self.text(self.ids[:-1] if self.finish else self.ids)
        shown, stopped = whole_part(text, self.stops)
        if stopped:
            self.finish = "stop"
        elif self.over():
            shown = text
        shown = shown if shown.startswith(self.shown) else self.shown
        more, self.shown = shown[len(self.shown) :], shown
        return self.piece(more)

    def is_end(self, token: int) -> bool:
        return token in self.cutter.ends or token in self.ends

    def text(self, ids: Sequence[int]) -> str:
        """What these tokens add to the prompt: some tokenizers write a space only between two words."""
        before = self.prompt[-TAIL:]
        base, whole = self.cutter.text(before), self.cutter.text([*before, *ids])
        return whole[len(base) :] if whole.startswith(base) else self.cutter.text(ids)

    def piece(self, more: str, tokens: int | None = None) -> Piece:
        written = len(self.ids) if tokens is None else tokens
        value = {"value": more, "tokens": written, "read": self.read, "finish": self.finish}
        return Piece(self.ticket, {self.name: value}, bool(self.finish))


def joined(name: str, sofar: Any, piece: Any) -> Any:
    """An answer so far with its next piece."""
    if sofar is None:
        return piece
    before, after = sofar[name], piece[name]
    return {name: {**after, "value": before["value"] + after["value"]}}
