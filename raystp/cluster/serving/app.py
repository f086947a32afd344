"""The service's paths: what is asked over HTTP, in JSON or Arrow, and what comes back, errors as sentences in JSON."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic.json_schema import models_json_schema

from raystp.cluster.serving.arrow import STREAM, from_arrow, to_arrow
from raystp.cluster.serving.auth import RequestRefused
from raystp.cluster.serving.messages import ImputeRequest, ImputeResponse, JsonRequest, from_json
from raystp.errors import RaystpError, StorageError

JSON = "application/json"
REFS = "#/components/schemas/{model}"
STATUSES = {
    400: "The body is not what its content type says",
    401: "No token, or not this service's",
    404: "No such path, or no such slide",
    408: "The request came too slowly",
    413: "The body, or the number of tiles, is too large",
    415: "Neither JSON nor an Arrow stream",
    422: "What is asked for cannot be answered",
    503: "Busy, or not ready: try again",
    504: "Not answered in time",
}


@runtime_checkable
class ServiceBackend(Protocol):
    """What the paths speak to."""

    def info(self) -> dict[str, Any]:
        """Return what `/v1/info` says."""

    def metrics(self) -> bytes:
        """Return what `/metrics` says."""

    async def impute(self, asked: ImputeRequest) -> tuple[ImputeResponse, int]:
        """Return an answer, and how many questions were answered with it; raises Refused or RaystpError."""


def make_app(desk: ServiceBackend, version: str) -> FastAPI:
    """Return the application."""
    app = FastAPI(title="raystp", version=version, docs_url=None, redoc_url=None, separate_input_output_schemas=False)
    for kind in (RequestRefused, RaystpError, HTTPException, Exception):
        app.add_exception_handler(kind, _told)
    app.add_exception_handler(404, _no_path)
    app.add_exception_handler(405, _no_method)

    @app.get("/healthz", summary="Whether the process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", summary="Whether model and bank are open")
    async def readyz() -> dict[str, str]:
        return {"status": "ready"}  # a replica is asked nothing before it has opened them

    @app.get("/v1/info", summary="The model, its genes, and the limits")
    async def info() -> JSONResponse:
        return JSONResponse(desk.info())

    @app.get("/metrics", summary="This replica's counts, for Prometheus")
    async def metrics() -> Response:
        return Response(desk.metrics(), media_type="text/plain; version=0.0.4")

    @app.post("/v1/impute", summary="Expression at tiles", openapi_extra=_request(), responses=_responses())
    async def impute(request: Request) -> Response:
        asked = await _asked(request)
        answered, together = await desk.impute(asked)
        arrow = STREAM in request.headers.get("accept", "")
        written = await asyncio.to_thread(to_arrow if arrow else ImputeResponse.json, answered)
        return Response(written, media_type=STREAM if arrow else JSON, headers={"x-raystp-batch": str(together)})

    app.openapi = _described(app.openapi)  # type: ignore[method-assign]  # FastAPI's own way to extend it
    return app


async def _asked(request: Request) -> ImputeRequest:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if kind == JSON:
        return await asyncio.to_thread(from_json, body)
    if kind == STREAM:
        return await asyncio.to_thread(from_arrow, body, dict(request.query_params))
    raise RequestRefused(415, f"content-type: {JSON} and {STREAM} are read, got {kind[:80] or 'none'}")


async def _told(_: Request, error: Exception) -> Response:
    """Say an error; what nobody foresaw is in the replica's log, and not in the answer."""
    status, sentence = 500, "the service failed at this request; its log says why"
    if isinstance(error, RequestRefused):
        status, sentence = error.status, error.sentence
    elif isinstance(error, RaystpError):
        status, sentence = (404 if isinstance(error, StorageError) else 422), str(error)
    elif isinstance(error, HTTPException):
        status, sentence = error.status_code, str(error.detail)
    return JSONResponse({"error": sentence}, status)


async def _no_path(request: Request, _: Exception) -> Response:
    paths = "/v1/impute, /v1/info, /healthz, /readyz, /metrics, /openapi.json"
    return JSONResponse({"error": f"there is no {request.url.path[:200]!r} here; there are {paths}"}, 404)


async def _no_method(request: Request, _: Exception) -> Response:
    return JSONResponse({"error": f"{request.url.path[:200]} does not take {request.method[:20]}"}, 405)


def _request() -> dict[str, Any]:
    arrow = {"schema": {"type": "string", "format": "binary"}}
    content = {JSON: {"schema": {"$ref": REFS.format(model=JsonRequest.__name__)}}, STREAM: arrow}
    return {"requestBody": {"required": True, "content": content}}


def _responses() -> dict[int | str, dict[str, Any]]:
    told = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    rows = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    answer = {
        "type": "object",
        "properties": {
            "genes": {"type": "array", "items": {"type": "string"}},
            "expression": rows,
            "distance": {"type": "array", "items": {"type": "number"}},
            "far": {"type": "array", "items": {"type": "boolean"}},
            "spread": rows,
            "neighbours": {"type": "object"},
            "squares": rows,
        },
        "required": ["genes", "expression", "distance", "far"],
    }
    found: dict[int | str, dict[str, Any]] = {
        200: {"description": "A line per tile, a column per gene", "content": {JSON: {"schema": answer}, STREAM: {}}}
    }
    return found | {
        status: {"description": words, "content": {JSON: {"schema": told}}} for status, words in STATUSES.items()
    }


def _described(own: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Return FastAPI's description with the form of a question in it, whose body the paths read themselves."""

    def described() -> dict[str, Any]:
        schema = own()
        _, forms = models_json_schema([(JsonRequest, "validation")], ref_template=REFS)
        schema.setdefault("components", {}).setdefault("schemas", {}).update(forms["$defs"])
        return schema

    return described
