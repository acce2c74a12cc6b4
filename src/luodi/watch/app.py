"""The live page of some runs: their streams of events by byte offset, their evidence, and our own files."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luodi
from luodi.core.catalog import require
from luodi.core.errors import LuodiError
from luodi.watch.watched import Watched

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

HOST = "127.0.0.1"  # nothing asks who calls, so nobody else may
PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def create(runs: Sequence[Watched]) -> FastAPI:
    """The application; every answer is read from the disk when it is asked for."""
    fastapi = require("fastapi", "serve")
    hosts = require("starlette.middleware.trustedhost", "serve")
    app = fastapi.FastAPI(title="luodi watch", version=luodi.__version__, docs_url=None, redoc_url=None)
    app.add_middleware(hosts.TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])

    def one(number: int) -> Watched:
        if not 0 <= number < len(runs):
            raise fastapi.HTTPException(404, f"runs are numbered 0 to {len(runs) - 1}")
        return runs[number]

    def names() -> list[dict[str, Any]]:
        return [{"number": place, "name": run.name, "path": str(run.path)} for place, run in enumerate(runs)]

    def events(number: int, stamp: str = "", at: int = 0) -> dict[str, Any]:
        return one(number).events(stamp, at)

    def evidence(number: int) -> dict[str, Any]:
        return one(number).evidence()

    app.add_api_route("/runs", names, summary="The runs that are watched.")
    app.add_api_route("/runs/{number}/events", events, summary="A run's events from byte `at` on.")
    app.add_api_route("/runs/{number}/evidence", evidence, summary="The evidence of every kept step, by its key.")
    _add_page(app)
    return app


def _add_page(app: FastAPI) -> None:
    """Our own files only, from memory; the browser is told to load nothing from elsewhere."""
    from starlette.responses import Response
    from starlette.routing import Route

    headers = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "cache-control": "no-cache"}

    def route(path: str, file: Path) -> Route:
        content, kind = file.read_bytes(), KINDS[file.suffix]

        async def give(_: Request) -> Response:
            return Response(content, media_type=kind, headers=headers)

        return Route(path, give, include_in_schema=False)

    files = sorted(file for file in PAGE.iterdir() if file.suffix in KINDS)
    app.router.routes.extend(route(f"/page/{file.name}", file) for file in files)
    app.router.routes.append(route("/", PAGE / "index.html"))


def watch(runs: Sequence[Watched], port: int) -> None:
    """Listens on the loopback address until SIGTERM or Ctrl-C; port 0 takes a free one. Prints one line first."""
    uvicorn = require("uvicorn", "serve")
    app = create(runs)
    try:
        listening = socket.create_server((HOST, port), backlog=128)
    except OSError as error:
        told = f"cannot listen on {HOST}:{port}: {error.strerror or error}"
        raise LuodiError(f"{told}; another --port, or 0 for a free one") from error
    names = ", ".join(run.name for run in runs)
    print(f"watching {names} at http://{HOST}:{listening.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, access_log=False, log_level="warning", server_header=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listening])
