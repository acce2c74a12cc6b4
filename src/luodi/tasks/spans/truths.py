"""What a row says of its answer."""

from __future__ import annotations

from typing import Any

from luodi.core.errors import BadRequest

Place = tuple[int, int] | None  # characters [start, end) of a context; None: there is no answer in it


def place_of(cell: Any, start: Any, context: str) -> tuple[tuple[str, ...], Place]:
    """The right answers of a row, the first one's place; of none ("",) and None.

    `start` is the character where it begins, or a list of them; None: where it first stands. Raises BadRequest unless
    it stands there.
    """
    texts = tuple(cell) if isinstance(cell, list | tuple) else ("" if cell is None else cell,)
    if not all(isinstance(text, str) for text in texts):
        raise BadRequest("", f"expected an answer as text, or several, got {type(texts[0]).__name__}")
    texts = tuple(text for text in texts if text)
    if not texts:
        return ("",), None
    first = start[0] if isinstance(start, list | tuple) and start else start
    if first is None or first != first or isinstance(first, list | tuple):  # NaN: what tables keep in an empty cell
        at = context.find(texts[0])
        if at < 0:
            raise BadRequest("", f"{texts[0][:60]!r} does not stand in the context")
    else:
        at = int(first)
        if not 0 <= at <= len(context) or not context.startswith(texts[0], at):
            raise BadRequest("", f"{texts[0][:60]!r} does not stand at character {at} of the context")
    return texts, (at, at + len(texts[0]))
