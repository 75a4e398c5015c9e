"""The ASGI application: routes, limits, keys, and one structured error for each kind of mistake."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from r4t.config import Serve
from r4t.errors import UserError
from r4t.http import BodyTooLargeError, carries_key, read_body
from r4t.serving.answers import sets_of
from r4t.serving.asking import asked_of, read_request
from r4t.serving.measures import CONTENT_TYPE_LATEST, Measures
from r4t.serving.openapi import document
from r4t.serving.pages import HEADERS, HOME, pages
from r4t.serving.refused import RefusedError
from r4t.serving.service import Service
from r4t.serving.watch import Watcher

Handler = Callable[[Request], Awaitable[Response]]
CODES = {404: "not_found", 405: "method_not_allowed"}

log = logging.getLogger("r4t.serve")


def serving_app(
    service: Service,
    settings: Serve,
    *,
    digest: str | None = None,
    measures: Measures | None = None,
    watcher: Watcher | None = None,
    run_page: Callable[[], Mapping[str, Any]] = dict,
) -> Starlette:
    """The application. digest: `key_digest` of what requests to /v1 and /metrics must carry. watcher: started and ended
    with it. run_page: the data of /v1/run, made in a thread. Shutting down finishes what was admitted."""
    return _App(service, settings, digest, measures or Measures(service), watcher, run_page).starlette()


class _App:
    def __init__(
        self,
        service: Service,
        settings: Serve,
        digest: str | None,
        measures: Measures,
        watcher: Watcher | None,
        run_page: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.service, self.settings, self.digest = service, settings, digest
        self.measures, self.watcher, self.run_page = measures, watcher, run_page
        self.pages = pages()

    def starlette(self) -> Starlette:
        routes = [
            self._route("/v1/retrieve", self.retrieve, "POST", keyed=True),
            self._route("/v1/methods", self.methods, keyed=True),
            self._route("/v1/run", self.run, keyed=True),
            self._route("/metrics", self.metrics, keyed=True),
            self._route("/healthz", self.healthz),
            self._route("/readyz", self.readyz),
            self._route("/openapi.json", self.openapi),
            self._route("/", self.page),
            self._route("/assets/{name}", self.page),
        ]
        cors = Middleware(
            CORSMiddleware,
            allow_origins=self.settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
        middleware = [cors] if self.settings.cors_origins else []
        errors: Any = {HTTPException: _http_error}
        app = Starlette(routes=routes, middleware=middleware, lifespan=self._lifespan, exception_handlers=errors)
        app.router.redirect_slashes = False
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        if self.watcher is not None:
            self.watcher.start()
        yield
        if self.watcher is not None:
            self.watcher.stop()
        self.service.stop_admitting()
        await asyncio.to_thread(self.service.close)

    def _route(self, path: str, handler: Handler, method: str = "GET", keyed: bool = False) -> Route:
        async def answered(request: Request) -> Response:
            start = time.perf_counter()
            try:
                if keyed and self.digest is not None and not carries_key(request, self.digest):
                    raise RefusedError(401, "unauthorised", "send the API key: Authorization: Bearer KEY")
                response = await handler(request)
            except Exception as error:
                response = _refusal(error)
            self.measures.request(path, response.status_code, time.perf_counter() - start)
            response.headers["X-Content-Type-Options"] = "nosniff"
            return response

        return Route(path, answered, methods=[method])

    async def retrieve(self, request: Request) -> Response:
        start = time.perf_counter()
        wanted = read_request(await self._body(request), self.settings)
        version = self.service.version
        asked = asked_of(wanted, version)
        answers = await self.service.answer(version, asked)
        sets = sets_of(answers, [one.text for one in asked], wanted.map)
        seconds = dict(answers[0].seconds)
        self.measures.sets(asked[0].method, len(sets), seconds)
        seconds["total"] = time.perf_counter() - start
        return _json(
            {
                "lineage": version.lineage,
                **{name: getattr(asked[0], name) for name in ("method", "k", "seed", "spread")},
                "milliseconds": {name: round(value * 1e3, 3) for name, value in seconds.items()},
                "sets": sets,
            }
        )

    async def methods(self, _: Request) -> Response:
        version, settings = self.service.version, self.settings
        described = [
            {"name": one.name, "title": one.title, "description": one.description, "controls": list(one.controls)}
            for one in version.methods.values()
        ]
        limits = {"queries": settings.max_queries, "k": settings.max_k, "characters": settings.max_characters}
        return _json(
            {
                "default": version.default,
                "methods": described,
                "catalog": {"items": len(version.catalogue), "name": version.name},
                "filters": [{"column": name, "values": values} for name, values in version.catalogue.facets.items()],
                "examples": version.examples,
                "limits": limits,
                "lineage": version.lineage,
                "dim": version.dim,
            }
        )

    async def run(self, _: Request) -> Response:
        return _json(await asyncio.to_thread(self.run_page))

    async def metrics(self, _: Request) -> Response:
        return Response(self.measures.text(), media_type=None, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(self, _: Request) -> Response:
        return _json({"status": "ok"})

    async def readyz(self, _: Request) -> Response:
        if self.service.draining:
            raise RefusedError(503, "stopping", "the server is about to stop: ask another one")
        return _json({"status": "ready", "lineage": self.service.version.lineage})

    async def openapi(self, _: Request) -> Response:
        return _json(document(self.settings, self.service.version.dim, self.digest is not None))

    async def page(self, request: Request) -> Response:
        found = self.pages.get(request.path_params.get("name", HOME))
        if found is None:
            raise RefusedError(404, "not_found", "nothing is served here: /openapi.json lists what is")
        return Response(found.content, headers={**HEADERS, "Content-Type": found.media_type})

    async def _body(self, request: Request) -> bytes:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RefusedError(415, "unsupported_media_type", "send JSON, with Content-Type: application/json")
        try:
            async with asyncio.timeout(self.settings.body_timeout):
                return await read_body(request, self.settings.max_body)
        except TimeoutError:
            raise RefusedError(
                408, "request_timeout", f"the request did not arrive within {self.settings.body_timeout:g} s"
            ) from None


def _refusal(error: Exception) -> Response:
    """What a client is told: never more of the server than this."""
    if isinstance(error, RefusedError):
        return _error(error)
    if isinstance(error, BodyTooLargeError):
        return _error(RefusedError(413, "too_large", "the request is too large: send fewer queries at a time"))
    if isinstance(error, ClientDisconnect):
        return _error(RefusedError(400, "disconnected", "the client went away"))
    if isinstance(error, UserError):
        return _error(RefusedError(422, "bad_input", str(error)))
    log.error("a request failed", exc_info=error)
    return _error(RefusedError(500, "internal", "the server failed: its log says why"))


def _error(refused: RefusedError) -> Response:
    body = {"error": {"code": refused.code, "message": str(refused), "field": refused.field}}
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}}
    return _json(body, refused.status, headers.get(refused.status))


async def _http_error(_: Request, error: Any) -> Response:
    code = CODES.get(error.status_code, "bad_request")
    response = _error(RefusedError(error.status_code, code, "nothing is served here: /openapi.json lists what is"))
    response.headers.update(error.headers or {})
    return response


def _json(value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(value, inf_nan_mode="null"), status, dict(headers or {}), "application/json")
