"""POST /predict: reads a body within its limits, waits for the worker, says no in words."""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from luodi.core.errors import BadRequest
from luodi.serve.batching import Batcher, Call, Full
from luodi.serve.intake import Asked, Intake
from luodi.serve.metrics import Metrics
from luodi.serve.refusal import Headers, Refusal

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

MOST_BYTES = 20_000_000  # of one body
MOST_BYTES_HELD = 200_000_000  # of all bodies that are being read or wait
BODY_SECONDS = 30.0  # for a body to arrive
PATIENCE = 0.1  # seconds after which a waiting call looks whether its client is still there
GONE = 499  # counted, never sent
RETRY: Headers = [(b"retry-after", b"1")]
log = logging.getLogger("luodi.serve")


class Predict:
    """The endpoint as a plain ASGI callable: no validation layer and no thread hop but the worker's."""

    def __init__(self, intake: Intake, batcher: Batcher, metrics: Metrics) -> None:
        self.intake, self.batcher, self.metrics = intake, batcher, metrics
        self.held = 0  # bytes of bodies in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        held = [0]
        headers: Headers = []
        try:
            status, body = 200, await self._answer(scope, receive, held)
        except Refusal as refusal:
            status, body = refusal.status, refusal.body()
            headers = RETRY if status == 503 else []
        except BadRequest as error:  # a value that only shows itself unfit when it is encoded
            status, body = 422, self.intake.refusal(error).body()
        except ClientGone:
            status, body = GONE, b""
        except Exception as error:
            status, body = 500, _unexpected(error).body()
        finally:
            self.held -= held[0]
        self.metrics.called(status, perf_counter() - started)
        if status == GONE:
            return
        length = (b"content-length", str(len(body)).encode())
        start = {"type": "http.response.start", "status": status, "headers": [*JSON_HEADERS, length, *headers]}
        await send(start)
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive, held: list[int]) -> bytes:
        content_type = length = b""
        for name, value in scope["headers"]:
            if name == b"content-type":
                content_type = value
            elif name == b"content-length":
                length = value
        declared = content_type.decode("latin-1")
        kind = self.intake.kind(declared)
        if length.isdigit() and int(length) > MOST_BYTES:
            raise _too_large()
        body = await self._body(receive, held)
        try:
            call = self.batcher.submit(Asked(self.intake, body, kind, declared))
        except Full as error:
            raise _busy(f"{self.batcher.most} calls wait already") from error
        return await self._wait(call, receive)

    async def _body(self, receive: Receive, held: list[int]) -> bytes:
        """The whole body; most arrive in one message, so only a longer one pays for a clock."""
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
            raise _busy("the bodies of waiting calls fill the memory set aside for them")
        return piece

    async def _wait(self, call: Call, receive: Receive) -> bytes:
        """The answer; a client that leaves meanwhile has its requests dropped."""
        watchers: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        timer = loop.call_later(
            PATIENCE, lambda: watchers.append(loop.create_task(self._drop_when_gone(call, receive)))
        )
        try:
            return await call.future
        except asyncio.CancelledError:
            if watchers and watchers[0].done():
                raise ClientGone from None
            self.batcher.drop(call)
            raise
        finally:
            timer.cancel()
            for watcher in watchers:
                watcher.cancel()

    async def _drop_when_gone(self, call: Call, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.batcher.drop(call)


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


JSON_HEADERS: Headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]


def _too_large() -> Refusal:
    return Refusal(413, "the body is too large", expected=f"at most {MOST_BYTES // 1_000_000} MB")


def _busy(why: str) -> Refusal:
    return Refusal(503, f"too busy: {why}", expected="the same call again, a little later")


def _unexpected(error: Exception) -> Refusal:
    """A failure of ours: the whole story in the log, its id to the client."""
    failure = uuid4().hex[:12]
    log.error("failure %s", failure, exc_info=error)
    return Refusal(500, "the server failed; its log has the reason under this id", extra={"id": failure})
