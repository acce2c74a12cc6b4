"""A run's stream of events, read from where the last reading ended, while somebody writes it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

MOST = 1 << 20  # bytes of one piece, unless a single event is longer
BEGINNING = b'{"time": '  # of every event


@dataclass(frozen=True)
class Piece:
    """Some events and where they end. `stamp` says which stream it is: another one, and all is to be read again."""

    stamp: str
    start: int
    end: int
    events: list[dict[str, Any]]
    more: bool  # whether further whole events are there already

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def read(path: Path, stamp: str = "", at: int = 0) -> Piece:
    """The whole events from byte `at` on; from the beginning if the stream is not the one of `stamp`.

    A last line that is not yet whole is left for the next reading. There may be no file yet.
    """
    try:
        with path.open("rb") as stream:
            first = stream.readline()
            if not first.endswith(b"\n"):
                return Piece("", 0, 0, [], False)
            found = sha256(first).hexdigest()[:12]
            size = stream.seek(0, 2)
            start = at if found == stamp and 0 <= at <= size else 0
            stream.seek(start)
            text = stream.read(MOST)
            if b"\n" not in text:
                text += stream.readline()
    except FileNotFoundError:
        return Piece("", 0, 0, [], False)
    text = text[: text.rfind(b"\n") + 1]
    events = [event for line in text.splitlines() if (event := _event(line)) is not None]
    end = start + len(text)
    return Piece(found, start, end, events, bool(text) and end < size)


def _event(line: bytes) -> dict[str, Any] | None:
    """One event; None for a line that holds none. After a torn line, a run that goes on writes behind it."""
    for text in (line, line[max(line.rfind(BEGINNING), 0) :]):
        try:
            event = json.loads(text, parse_constant=lambda _: None)
        except ValueError:
            continue
        return event if isinstance(event, dict) else None
    return None
