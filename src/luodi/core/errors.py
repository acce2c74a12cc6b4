"""The errors a person reads: what was wrong, where, what is allowed, the nearest name, the next command."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class LuodiError(Exception):
    """A user's mistake: printed without a traceback, exit code 2."""

    exit_code = 2


class BadRequest(LuodiError):
    """A value that a field cannot read; `column` names the field, the message says what is allowed."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(f"{column}: {message}" if column else message)
        self.column = column
        self.message = message


class Refused(LuodiError):
    """A step that cannot run here, said before any work."""


class MissingExtra(LuodiError):
    """An optional package is not installed; the message names the extra."""


class Damaged(LuodiError):
    """A bundle whose bytes are not those of its manifest, or that a later luodi wrote."""


class ParityError(LuodiError):
    """A bundle that does not answer its golden requests as it did when it was made."""


class LimitMissed(LuodiError):
    """A limit of the recipe is not met; exit code 3."""

    exit_code = 3


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The hint that ends an error about an unknown name: the nearest allowed one, then all of them."""
    known = sorted(set(allowed))
    close = get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    shown = ", ".join(known[:12]) + (f", and {len(known) - 12} more" if len(known) > 12 else "")
    return f"{hint}allowed: {shown or 'nothing'}"
