"""The service's HTTP paths: JSON or Arrow requests and responses; errors as JSON, `{"error": ...}`."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic.json_schema import models_json_schema

from raystp.cluster.serving.arrow import STREAM, from_arrow, to_arrow
from raystp.cluster.serving.asgi import RequestRefused
from raystp.cluster.serving.messages import ImputeRequest, ImputeResponse, JsonRequest, from_json
from raystp.errors import ClusterError, RaystpError, StorageError

JsonObject: TypeAlias = "dict[str, object]"
JSON = "application/json"
REFS = "#/components/schemas/{model}"
PATHS = "/v1/impute, /v1/info, /healthz, /readyz, /metrics, /openapi.json"
STATUSES = {
    400: "The body does not match its content type",
    401: "Missing or wrong token",
    404: "Unknown path or slide",
    408: "The request body came too slowly",
    413: "Too many bytes or tiles",
    415: "Neither JSON nor an Arrow stream",
    422: "Invalid request",
    503: "Busy or not ready: retry",
    504: "No result within the deadline",
}


@runtime_checkable
class ServiceBackend(Protocol):
    """What the paths call."""

    def info(self) -> JsonObject:
        """Return the body of `/v1/info`."""

    def metrics(self) -> bytes:
        """Return the body of `/metrics`."""

    async def impute(self, request: ImputeRequest) -> tuple[ImputeResponse, int]:
        """Return a response, and the number of requests in its batch; raise RequestRefused or RaystpError."""


def make_app(backend: ServiceBackend, version: str) -> FastAPI:
    """Return the application."""
    app = FastAPI(title="raystp", version=version, docs_url=None, redoc_url=None, separate_input_output_schemas=False)
    for kind in (RequestRefused, RaystpError, HTTPException, Exception):
        app.add_exception_handler(kind, _error_response)
    app.add_exception_handler(404, _unknown_path)
    app.add_exception_handler(405, _wrong_method)

    @app.get("/healthz", summary="Liveness of the process")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", summary="Readiness: model and index are open")
    async def readyz() -> dict[str, str]:
        return {"status": "ready"}  # Serve sends a replica no request before its constructor has opened them

    @app.get("/v1/info", summary="The model, its genes, and the limits")
    async def info() -> JSONResponse:
        return JSONResponse(backend.info())

    @app.get("/metrics", summary="This replica's metrics, for Prometheus")
    async def metrics() -> Response:
        return Response(backend.metrics(), media_type="text/plain; version=0.0.4")

    @app.post("/v1/impute", summary="Predict expression at tiles", openapi_extra=_request(), responses=_responses())
    async def impute(request: Request) -> Response:
        response, batch_size = await backend.impute(await _parse(request))
        arrow = STREAM in request.headers.get("accept", "")
        content = await asyncio.to_thread(to_arrow if arrow else ImputeResponse.to_json, response)
        return Response(content, media_type=STREAM if arrow else JSON, headers={"x-raystp-batch": str(batch_size)})

    app.openapi = _with_schemas(app.openapi)  # type: ignore[method-assign]  # FastAPI's documented extension point
    return app


async def _parse(request: Request) -> ImputeRequest:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if kind == JSON:
        return await asyncio.to_thread(from_json, body)
    if kind == STREAM:
        return await asyncio.to_thread(from_arrow, body, dict(request.query_params))
    raise RequestRefused(415, f"content-type must be {JSON} or {STREAM}, got {kind[:80] or 'none'}")


async def _error_response(_: Request, error: Exception) -> Response:
    """Map exceptions to JSON errors; Starlette logs unexpected ones, and they are answered with 500."""
    status, message = 500, "internal error: see the replica's log"
    if isinstance(error, RequestRefused):
        status, message = error.status, error.message
    elif isinstance(error, RaystpError) and not isinstance(error, ClusterError):
        status, message = (404 if isinstance(error, StorageError) else 422), str(error)
    elif isinstance(error, HTTPException):
        status, message = error.status_code, str(error.detail)
    return JSONResponse({"error": message}, status)


async def _unknown_path(request: Request, _: Exception) -> Response:
    return JSONResponse({"error": f"unknown path {request.url.path[:200]!r}; the paths are {PATHS}"}, 404)


async def _wrong_method(request: Request, _: Exception) -> Response:
    return JSONResponse({"error": f"{request.url.path[:200]} does not accept {request.method[:20]}"}, 405)


def _request() -> JsonObject:
    arrow = {"schema": {"type": "string", "format": "binary"}}
    content = {JSON: {"schema": {"$ref": REFS.format(model=JsonRequest.__name__)}}, STREAM: arrow}
    return {"requestBody": {"required": True, "content": content}}


def _responses() -> dict[int | str, JsonObject]:
    error = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    rows = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    response = {
        "type": "object",
        "properties": {
            "genes": {"type": "array", "items": {"type": "string"}},
            "expression": rows,
            "distance": {"type": "array", "items": {"type": ["number", "null"]}},
            "far": {"type": "array", "items": {"type": "boolean"}},
            "spread": rows,
            "neighbours": {"type": "object"},
            "tile_boxes": rows,
        },
        "required": ["genes", "expression", "distance", "far"],
    }
    responses: dict[int | str, JsonObject] = {
        200: {"description": "A row per tile, a column per gene", "content": {JSON: {"schema": response}, STREAM: {}}}
    }
    for status, text in STATUSES.items():
        responses[status] = {"description": text, "content": {JSON: {"schema": error}}}
    return responses


def _with_schemas(openapi: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Add the schema of the JSON body to FastAPI's description, since the path parses its body itself."""

    def described() -> dict[str, Any]:
        schema = openapi()
        _, definitions = models_json_schema([(JsonRequest, "validation")], ref_template=REFS)
        schema.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
        return schema

    return described
