"""The server of one bundle: JSON and images in, answers out, a page for people, figures for Prometheus."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luodi
from luodi.core import store
from luodi.core.bundle import Bundle
from luodi.core.catalog import require
from luodi.core.errors import LuodiError
from luodi.serve.batching import Batcher
from luodi.serve.body import Bodies
from luodi.serve.card import card
from luodi.serve.endpoint import Endpoint, Manner
from luodi.serve.intake import JSON, Intake
from luodi.serve.metrics import Metrics
from luodi.serve.openai.routes import add_routes
from luodi.serve.openai.told import told
from luodi.serve.openapi import document
from luodi.serve.refusal import Refusal, text

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI, Request

PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
DRAIN_SECONDS = 20  # for calls in flight when the server is asked to end


def create(bundle: Bundle, *, threads: int = 1, name: str, digest: str = "", form: str | None = None) -> FastAPI:
    """The application over an open bundle; `form` defaults to the serving one, `threads` are the model's."""
    fastapi = require("fastapi", "serve")
    form = form or bundle.serving
    predictor = bundle.predictor(form, threads=threads)
    predictor(bundle.task.examples(1, 0))  # the first call of a runtime is slow: nobody should wait for it
    metrics = Metrics(name, digest, form)
    batcher = Batcher(predictor, metrics.stepped)
    metrics.waiting.set_function(lambda: batcher.calls)
    facts = {"bundle": digest, "form": form}
    intake = Intake(bundle.task, facts)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        batcher.start()
        yield
        await batcher.stop()

    app = fastapi.FastAPI(
        title=name, version=luodi.__version__, summary=f"Served by luodi from its {form} form.", lifespan=lifespan,
        docs_url=None, redoc_url=None,
    )  # fmt: skip
    bodies = Bodies()

    def asked(path: str, manner: Manner) -> None:
        endpoint = Endpoint(manner, batcher, metrics, bodies)
        app.router.add_route(path, endpoint, methods=["POST"], include_in_schema=False)

    asked("/predict", intake)
    add_routes(app, asked, bundle.task, name, f"{digest[:12]}-{form}")
    _add_facts(app, batcher, metrics, card(bundle, name=name, digest=digest, form=form, threads=threads))
    _add_page(app)
    _add_refusals(app)
    app.openapi = document(app, intake, bundle.task.wire_schema()["answer"], facts)
    return app


def _add_facts(app: FastAPI, batcher: Batcher, metrics: Metrics, about: dict[str, Any]) -> None:
    from starlette.responses import Response

    facts = text(about)
    figures = "text/plain; version=0.0.4; charset=utf-8"

    def json(body: bytes, status: int = 200) -> Response:
        return Response(body, status, media_type=JSON)

    async def live() -> Response:
        return json(b'{"status":"live"}')

    async def ready() -> Response:
        return json(b'{"status":"ready"}') if batcher.alive else json(b'{"status":"not ready"}', 503)

    async def told() -> Response:
        return json(facts)

    async def counted() -> Response:
        return Response(metrics.text(), headers={"content-type": figures})

    routes = {
        "/health/live": (live, JSON, "Whether the process answers at all."),
        "/health/ready": (ready, JSON, "Whether calls of /predict are answered; 503: not."),
        "/about": (told, JSON, "The bundle, its columns and what was measured of it."),
        "/metrics": (counted, "text/plain", "Figures as Prometheus reads them."),
    }
    for path, (endpoint, kind, summary) in routes.items():
        content = {kind: {"schema": {"type": "object" if kind == JSON else "string"}}}
        responses: dict[int | str, dict[str, Any]] = {200: {"description": "Yes.", "content": content}}
        if path == "/health/ready":
            responses[503] = {"description": "No.", "content": content}
        app.add_api_route(
            path, endpoint, summary=summary, responses=responses, response_class=Response, response_model=None
        )


def _add_page(app: FastAPI) -> None:
    """Our own files only, from memory; the browser is told to load nothing from elsewhere."""
    from starlette.responses import Response
    from starlette.routing import Route

    policy = (
        "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"content-security-policy": policy, "x-content-type-options": "nosniff", "cache-control": "no-cache"}

    def route(path: str, file: Path) -> Route:
        content, kind = file.read_bytes(), KINDS[file.suffix]

        async def give(_: Request) -> Response:
            return Response(content, media_type=kind, headers=headers)

        return Route(path, give, include_in_schema=False)

    files = sorted(file for file in PAGE.iterdir() if file.suffix in KINDS)
    app.router.routes.extend(route(f"/page/{file.name}", file) for file in files)
    app.router.routes.append(route("/", PAGE / "index.html"))


def _add_refusals(app: FastAPI) -> None:
    """Unknown paths, wrong methods and failures of ours in the one shape of a refusal."""
    from starlette.exceptions import HTTPException
    from starlette.responses import Response

    async def refuse(request: Request, error: Any) -> Response:
        allowed = (error.headers or {}).get("Allow")
        expected = allowed and f"{allowed} {request.url.path}"
        refusal = Refusal(error.status_code, str(error.detail), expected=expected)
        theirs = request.url.path.startswith("/v1/")
        body = told(refusal) if theirs else refusal.body()
        return Response(body, error.status_code, error.headers, "application/json")

    app.add_exception_handler(HTTPException, refuse)


def serve(path: Path, host: str, port: int, form: str | None, threads: int, trust: tuple[str, ...]) -> None:
    """Opens a bundle, replays its golden requests, then listens until SIGTERM or SIGINT; port 0 takes a free one.

    `form`: None or "serving" stands for the one that the bundle serves. Prints one line on stdout once calls are
    accepted. Calls in flight are answered before it returns.
    """
    uvicorn = require("uvicorn", "serve")
    head = store.peek(path)
    form = head["serving"] if form in (None, "serving") else form
    if form == "torch":
        require("torch", "serve").set_num_threads(threads)  # of the whole process: torch knows no other way
    bundle = Bundle.load(path, form=form, check=True, trust=trust)
    name = named(path)
    app = create(bundle, threads=threads, name=name, digest=head["digest"], form=form)
    listening = _listen(host, port)
    if not _loopback(host):
        print(f"warning: {host} can be reached from other machines, and nothing asks who calls", file=sys.stderr)
    shown = f"[{host}]" if ":" in host else host
    line = f"serving {name} ({form}) at http://{shown}:{listening.getsockname()[1]}"
    config = uvicorn.Config(
        app, access_log=False, log_level="warning", lifespan="on", server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )  # fmt: skip
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_until_told(uvicorn.Server(config), listening, line))


async def _until_told(server: uvicorn.Server, listening: socket.socket, line: str) -> None:
    def end(*_: Any) -> None:
        server.should_exit = True

    # For a signal before uvicorn listens to them, and for the same signal that it raises again once it is done.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    running = asyncio.create_task(server.serve(sockets=[listening]))
    while not (server.started or running.done()):
        await asyncio.sleep(0.005)
    if server.started:
        print(line, flush=True)
    await running


def named(path: Path) -> str:
    """What a bundle is called: its folder, or its run's where that folder is a run's `bundle`."""
    whole = path.resolve()
    return whole.parent.name if whole.name == "bundle" else whole.name


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise LuodiError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; another --port, or 0 for a free one"
        ) from error
    # Head and body of an answer are two writes: the second must not wait for the first one's acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
