"""The paths of OpenAI's API that this bundle can answer."""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING, Any

from luodi.serve.intake import JSON
from luodi.serve.openai.completions import Completions, writer_of
from luodi.serve.openai.embeddings import Embeddings, embedder_of
from luodi.serve.openai.told import told
from luodi.serve.refusal import Refusal, text

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

    from luodi.core.task import Task
    from luodi.serve.endpoint import Manner


def add_routes(app: FastAPI, asked: Callable[[str, Manner], None], task: Task, name: str, fingerprint: str) -> None:
    """/v1/models always; the completions where a text goes on, the embeddings where it becomes a vector."""
    writer = writer_of(task, name, fingerprint)
    if writer is not None and writer.given == writer.column:
        asked("/v1/completions", Completions(writer, chat=False))
        asked("/v1/chat/completions", Completions(writer, chat=True))
    embedder = embedder_of(task, name)
    if embedder is not None:
        asked("/v1/embeddings", Embeddings(embedder))
    _add_models(app, {"id": name, "object": "model", "created": int(time()), "owned_by": "luodi"})


def _add_models(app: FastAPI, model: dict[str, Any]) -> None:
    from starlette.responses import Response

    async def models(_: Request) -> Response:
        return Response(text({"object": "list", "data": [model]}), media_type=JSON)

    async def one(request: Request) -> Response:
        asked = request.path_params["name"]
        if asked == model["id"]:
            return Response(text(model), media_type=JSON)
        refusal = Refusal(404, f"the model {asked!r} does not exist", column="model", extra={"code": "model_not_found"})
        return Response(told(refusal), 404, media_type=JSON)

    app.router.add_route("/v1/models", models, include_in_schema=False)
    app.router.add_route("/v1/models/{name:path}", one, include_in_schema=False)
