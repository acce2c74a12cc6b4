"""Bodies of calls, read within their limits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from luodi.serve.refusal import Refusal

if TYPE_CHECKING:
    from starlette.types import Receive

MOST_BYTES = 20_000_000  # of one body
MOST_BYTES_HELD = 200_000_000  # of all bodies that are being read or wait
BODY_SECONDS = 30.0  # for a body to arrive


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Bodies:
    """All bodies in memory: each call holds its own until it is answered."""

    def __init__(self) -> None:
        self.held = 0  # bytes

    async def read(self, receive: Receive, length: bytes, held: list[int]) -> bytes:
        """The whole body; `held[0]` counts its bytes. Most come in one message: only longer ones pay for a clock."""
        if length.isdigit() and int(length) > MOST_BYTES:
            raise _too_large()
        message = await receive()
        first = self._piece(message, held)
        if not message.get("more_body", False):
            return first
        pieces = [first]
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while message.get("more_body", False):
                    message = await receive()
                    pieces.append(self._piece(message, held))
        except TimeoutError as error:
            raise Refusal(408, f"the body did not arrive within {BODY_SECONDS:.0f} seconds") from error
        return b"".join(pieces)

    def _piece(self, message: Any, held: list[int]) -> bytes:
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        held[0] += len(piece)
        self.held += len(piece)
        if held[0] > MOST_BYTES:
            raise _too_large()
        if self.held > MOST_BYTES_HELD:
            raise busy("the bodies of waiting calls fill the memory set aside for them")
        return piece


def busy(why: str) -> Refusal:
    """What is said to a call that may come back."""
    return Refusal(503, f"too busy: {why}", expected="the same call again, a little later")


def _too_large() -> Refusal:
    return Refusal(413, "the body is too large", expected=f"at most {MOST_BYTES // 1_000_000} MB")
