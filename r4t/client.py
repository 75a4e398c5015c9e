"""A typed client of `r4t serve`.

with Client("http://127.0.0.1:8000") as client:
    answer = client.retrieve("rainy sunday", k=10)
    for item in answer.sets[0].items: ...
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import httpx
import numpy as np

from r4t.errors import UserError
from r4t.serving.messages import KEY_VARIABLE, MethodsResponse, RetrieveResponse
from r4t.types import Floats

AGAIN = (429, 503)
PROXYS = (404, 408)  # of a proxy that has no application yet, or has had no answer of it
AWAY = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout, httpx.PoolTimeout)
LONGEST_WAIT = 30.0  # seconds between two attempts
Queries = str | Sequence[str] | Floats
"""One text, several texts, one vector [d] or vectors [B, d]."""


class ServerError(Exception):
    """The server refused. status as HTTP has it; code and field as the server's error says."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.field = status, code, field


class Client:
    """Asks one server, over connections that it keeps. Safe to share between threads.

    key: the server's API key; None takes R4T_SERVE_KEY from the environment. timeout: seconds that the server may be
    silent in one attempt. retries: further attempts where the server is overloaded (429), about to stop (503), out of
    reach or dead under the request, after as long as its Retry-After says, else after times that double.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        key = key or os.environ.get(KEY_VARIABLE) or None
        headers = {b"Authorization": f"Bearer {key}".encode()} if key else {}  # as bytes: a key need not be ASCII
        self._http = httpx.Client(base_url=url, timeout=timeout, headers=headers, transport=transport)
        self._retries, self._sleep, self._timeout = retries, sleep, timeout

    def retrieve(
        self,
        queries: Queries,
        k: int = 10,
        *,
        method: str | None = None,
        seed: int = 0,
        spread: float = 1.0,
        filters: Mapping[str, Sequence[str]] | None = None,
        map: bool = False,
    ) -> RetrieveResponse:
        """One set for each query; method None is the endpoint's own default.

        Raises ServerError where the server refuses, UserError where none answers in time.
        """
        body: dict[str, Any] = {"k": k, "method": method, "seed": seed, "spread": spread, "map": map}
        body |= _asked(queries)
        if method is None:
            del body["method"]
        if filters:
            body["filters"] = {name: list(values) for name, values in filters.items()}
        return RetrieveResponse.model_validate_json(self._ask("POST", "/v1/retrieve", body))

    def methods(self) -> MethodsResponse:
        """What the server can do. Raises as `retrieve` does."""
        return MethodsResponse.model_validate_json(self._ask("GET", "/v1/methods"))

    def ready(self) -> bool:
        """Whether the server answers requests now."""
        try:
            return self._http.get("/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                response = self._http.request(method, path, json=body)
            except (httpx.ReadTimeout, httpx.WriteTimeout):  # at once: asking again gives a slow server more to do
                raise UserError(
                    f"the server at {self._http.base_url} did not answer within {self._timeout:g} s: ask with fewer"
                    " queries or a smaller k, or give Client a longer timeout"
                ) from None
            except AWAY as error:  # asking again changes nothing
                if last:
                    raise UserError(
                        f"no server answers at {self._http.base_url} ({error}): start one with `r4t serve RUN`"
                    ) from None
                self._sleep(_wait(attempt, None))
                continue
            except httpx.UnsupportedProtocol:
                raise UserError(f"{self._http.base_url} is no address of a server: give http://HOST:PORT") from None
            if response.is_success:
                return response.content
            if last or not _again(response):
                raise _error(response)
            self._sleep(_wait(attempt, response.headers.get("retry-after")))
        raise AssertionError("unreachable")


def _asked(queries: Queries) -> dict[str, Any]:
    if isinstance(queries, str):
        return {"query": queries}
    if isinstance(queries, np.ndarray):
        return {"vector" if queries.ndim == 1 else "vectors": queries.tolist()}
    return {"queries": list(queries)}


def _again(response: httpx.Response) -> bool:
    """Whether the same request may fare better: the server says so, or its proxy says that it is not there yet, died,
    or stood still."""
    told = response.headers.get("content-type", "").startswith("application/json")
    absent = response.is_server_error or response.status_code in PROXYS
    return response.status_code in AGAIN or (absent and not told)


def _wait(attempt: int, said: str | None) -> float:
    """Seconds until the next attempt; those of many clients spread out."""
    try:
        seconds = float(said) if said is not None else 0.0
    except ValueError:
        seconds = 0.0
    floor = seconds if math.isfinite(seconds) and seconds >= 0 else 0.0
    return min(floor + random.uniform(0.5, 1.0) * 0.1 * 2**attempt, LONGEST_WAIT)


def _error(response: httpx.Response) -> ServerError:
    try:
        error = response.json()["error"]
        return ServerError(response.status_code, str(error["code"]), str(error["message"]), error.get("field"))
    except (ValueError, KeyError, TypeError):  # not R4T's: a proxy between
        return ServerError(response.status_code, "http", f"the server answered {response.status_code}")
