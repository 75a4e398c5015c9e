"""The reward over HTTP, in the request and response format of OpenRLHF's reward servers.

    POST /get_reward  {"query": [decoded prompt and answer], "prompts": [...], "labels": [query_id, ...]}
                      -> {"rewards": [...], "scores": [...], "extra_logs": {"r4t/diversity": [...], ...}}
    GET  /health      -> {"status": "ok", "fingerprint": ...}: what decides the rewards, to tell servers apart
    GET  /stats       -> calls, batches and errors so far

Whatever goes wrong is {"error": {"type", "message"}} with a status that says whose mistake it was.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from r4t.errors import UserError
from r4t.http import BodyTooLargeError, carries_key, key_digest, read_body
from r4t.interop.service import RewardService

KEY_VARIABLE = "R4T_REWARD_KEY"

log = logging.getLogger("r4t.reward")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server accepts."""

    body_bytes: int = 8 << 20
    answers: int = 4096
    """In one request."""
    waiting: int = 16_384
    """Answers of all requests that wait for their score."""


class _RefusedError(Exception):
    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


def reward_app(service: RewardService, key: str | None = None, limits: Limits | None = None) -> Starlette:
    """The application. With `key`, requests must carry it: `Authorization: Bearer KEY`, or as the password of
    `http://r4t:KEY@HOST:PORT/get_reward`, which is how OpenRLHF's client can send one. Shutting down finishes what is
    being scored."""
    return _App(service, key, limits or Limits()).starlette()


class _App:
    def __init__(self, service: RewardService, key: str | None, limits: Limits) -> None:
        self.service, self.limits = service, limits
        self.digest = key_digest(key) if key is not None else None
        self.waiting = 0

    def starlette(self) -> Starlette:
        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            yield
            self.service.close()

        routes = [
            Route("/get_reward", self.get_reward, methods=["POST"]),
            Route("/health", self.health),
            Route("/stats", self.stats),
        ]
        return Starlette(routes=routes, lifespan=lifespan)

    async def health(self, _: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "fingerprint": self.service.reward.fingerprint})

    async def stats(self, request: Request) -> JSONResponse:
        try:
            self._authorise(request)
        except _RefusedError as refused:
            return _answer(refused)
        return JSONResponse(self.service.stats() | {"waiting": self.waiting})

    async def get_reward(self, request: Request) -> JSONResponse:
        try:
            self._authorise(request)
            columns = _columns(await self._body(request), self.limits)
            async with self._place(len(columns[0])):
                judged = await self.service.judge_async(*columns)
        except _RefusedError as refused:
            return _answer(refused)
        except UserError as error:
            return _answer(_RefusedError(422, "bad_input", str(error)))
        except TimeoutError:
            return _answer(_RefusedError(504, "timeout", "scoring took too long: see the server's log"))
        except ClientDisconnect:
            return _answer(_RefusedError(400, "disconnected", "the client went away"))
        except Exception as error:
            log.exception("scoring failed")
            return _answer(_RefusedError(500, "scoring_failed", f"{type(error).__name__}: {error}"))
        rewards = [one.reward for one in judged]
        logs = {name: [one.logs[name] for one in judged] for name in judged[0].logs}
        return JSONResponse({"rewards": rewards, "scores": rewards, "extra_logs": logs})

    @contextlib.asynccontextmanager
    async def _place(self, answers: int) -> AsyncIterator[None]:
        if self.waiting + answers > self.limits.waiting:
            raise _RefusedError(503, "overloaded", f"{self.waiting} answers wait already: ask again in a second")
        self.waiting += answers
        try:
            yield
        finally:
            self.waiting -= answers

    async def _body(self, request: Request) -> bytes:
        try:
            return await read_body(request, self.limits.body_bytes)
        except BodyTooLargeError:
            raise _RefusedError(413, "too_large", f"a request holds at most {self.limits.body_bytes} bytes") from None

    def _authorise(self, request: Request) -> None:
        if self.digest is not None and not carries_key(request, self.digest):
            raise _RefusedError(
                401, "unauthorised", "the API key is missing or wrong: http://r4t:KEY@HOST:PORT/get_reward"
            )


def _columns(body: bytes, limits: Limits) -> tuple[list[str], list[str], list[Any]]:
    """Texts, prompts and labels of a request. Raises _RefusedError for another shape."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise _RefusedError(400, "bad_request", "the body is not JSON") from None
    names = ("query", "prompts", "labels")
    if not isinstance(request, dict) or not all(isinstance(request.get(name), list) for name in names):
        raise _RefusedError(400, "bad_request", 'send {"query": [...], "prompts": [...], "labels": [...]}, three lists')
    texts, prompts, labels = (request[name] for name in names)
    if not texts:
        raise _RefusedError(400, "bad_request", "the request holds no answer")
    if len(texts) > limits.answers:
        raise _RefusedError(413, "too_large", f"a request holds at most {limits.answers} answers, not {len(texts)}")
    if not all(isinstance(text, str) for text in (*texts, *prompts)):
        raise _RefusedError(400, "bad_request", "query and prompts must hold strings alone")
    return texts, prompts, labels


def _answer(refused: _RefusedError) -> JSONResponse:
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}.get(refused.status)
    body = {"error": {"type": refused.kind, "message": str(refused)}}
    return JSONResponse(body, status_code=refused.status, headers=headers)
