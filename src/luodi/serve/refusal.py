"""How a server says no: a status and three things a person needs to know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Headers = list[tuple[bytes, bytes]]
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Refusal(Exception):
    """A call that is not answered: what was wrong, in which column, and what is expected instead."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        column: str | None = None,
        expected: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.column, self.expected = status, message, column, expected
        self.extra = extra or {}  # further facts: "index" of the request, "id" of a failure

    def body(self) -> bytes:
        """The JSON that the client gets."""
        facts = {"column": self.column, "message": self.message, "expected": self.expected, **self.extra}
        return text({"error": facts})


def text(value: Any) -> bytes:
    """Strict JSON: what is not a finite number becomes null; half a surrogate pair is escaped."""
    try:
        encoded = _encode(value)
    except ValueError:
        encoded = _encode(finite(value))
    return encoded.encode("utf-8", "backslashreplace")


def event(data: bytes) -> bytes:
    """One event of a stream (SSE); the data are one line."""
    return b"data: " + data + b"\n\n"


def finite(value: Any) -> Any:
    """The same value with null for NaN and infinities, which JSON has no words for."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
