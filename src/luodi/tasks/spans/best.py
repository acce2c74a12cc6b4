"""The best span of a context, from the logits of its windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luodi.fields.texts.cutters import Span
from luodi.fields.wording.segments import UNSPACED
from luodi.tasks.spans.windows import Window


@dataclass(frozen=True)
class Best:
    """Tokens [start, end) of the context, None for "there is no answer"; its share of all that may be answered."""

    span: tuple[int, int] | None
    probability: float


def sums(starts: np.ndarray, ends: np.ndarray, most: int) -> np.ndarray:
    """(tokens, most): the logits of the span from each token to the one so many behind it; -inf beyond the end."""
    found = np.full((len(starts), most), -np.inf)
    for more in range(min(most, len(starts))):
        found[: len(starts) - more, more] = starts[: len(starts) - more] + ends[more:]
    return found


def best_of(windows: Sequence[Window], logits: Sequence[np.ndarray], most: int, *, none: bool) -> Best:
    """The likeliest span of at most so many tokens, of all windows of a context.

    Each window's spans are weighed against its first place, which stands for "not here"; of a span that several windows
    hold, the largest counts. `none`: "nowhere" may be the answer.
    """
    size = windows[-1].end
    table = np.full((size, most), -np.inf)
    for window, rows in zip(windows, logits, strict=True):
        if window.end > window.first:
            own = rows[window.place : window.place + window.end - window.first].astype(np.float64)
            held = sums(own[:, 0], own[:, 1], most) - float(rows[0, 0]) - float(rows[0, 1])
            part = table[window.first : window.end]
            np.maximum(part, held, out=part)
    place = int(table.argmax()) if size else -1
    top = float(table.flat[place]) if size else -np.inf
    if none or not size:
        top_or_none = max(top, 0.0)
        total = float(np.exp(table - top_or_none).sum()) + float(np.exp(-top_or_none))
        if top <= 0:
            return Best(None, float(np.exp(-top_or_none)) / total)
    else:
        top_or_none, total = top, float(np.exp(table - top).sum())
    first, more = divmod(place, most)
    return Best((first, first + more + 1), float(np.exp(top - top_or_none)) / total)


def characters(text: str, spans: Sequence[Span], found: tuple[int, int]) -> tuple[int, int]:
    """Where tokens [start, end) begin and end in the text: whole words where words are parted by spaces, no space at
    the ends."""
    start, end = spans[found[0]][1], max(spans[found[1] - 1][2], spans[found[0]][1])
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    while 0 < start < end and _in_word(text[start - 1]) and _in_word(text[start]):
        start -= 1
    while start < end < len(text) and _in_word(text[end - 1]) and _in_word(text[end]):
        end += 1
    return start, end


def _in_word(character: str) -> bool:
    return character.isalnum() and not UNSPACED.match(character)
