"""Questions to an OpenAI-compatible server: bounded, retried, and answered from a cache the second time.

Every attempt is a request with a `seed` of its own, and its text is cached also where it was unusable: the same
questions give the same answers again, without the server. What failed on the way (no connection, an error status, a
response that is no chat completion) is not cached.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import httpx

from r4t.cache import cache_folder
from r4t.catalog.answer_cache import cached_answer, store_answer
from r4t.catalog.answers import MAX_BYTES, Unusable, excerpt, text_of
from r4t.config import Endpoint
from r4t.errors import UserError

Parsed = TypeVar("Parsed")
HOPELESS = 16  # questions that fail before the first that does not
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before an attempt after a failed request; doubles
REFUSED = {401: "the key is refused", 403: "the key is refused", 404: "there is no such address or model"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One prompt. The seed of each attempt is derived from `seed`, which tells apart questions of the same words."""

    user: str
    system: str = ""
    seed: str = ""
    schema: Mapping[str, Any] | None = None
    """JSON Schema that the server is asked to hold the answer to."""


@dataclass(slots=True)
class Counts:
    """What was asked so far."""

    requests: int = 0
    """Sent to the server, retries among them."""
    cached: int = 0
    """Attempts that the cache answered."""
    failed: int = 0
    """Questions without a usable answer after every attempt."""


class Bar(Protocol):
    """Progress of one loop."""

    def advance(self) -> None: ...


Progress = Callable[[str, int], AbstractContextManager[Bar]]  # of a description and a total


class Busy(Unusable):
    """The request failed; waiting may help. `wait`: seconds the server asked for."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class Client:
    """Asks the server of `settings`. `counts` grow with every question."""

    def __init__(self, settings: Endpoint, progress: Progress) -> None:
        self.settings = settings
        self._progress = progress
        self.counts = Counts()
        self._key = _key(settings.api_key_env)
        self._lock = threading.Lock()

    def ask(self, questions: Sequence[Question], parse: Callable[[int, str], Parsed]) -> list[Parsed | None]:
        """The parsed answer to each question, in order; None where every attempt failed.

        `parse(number of the question, text)` raises `Unusable` for nonsense, which is then asked again; it runs in
        several threads. Raises UserError when the server refuses, or when more than half of the questions fail.
        """
        answers: list[Parsed | None] = [None] * len(questions)
        problems: list[str] = []
        stop = threading.Event()
        # No compression: its size on the wire would not bound its size in memory.
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        with (
            httpx.Client(headers=headers, timeout=self.settings.timeout) as http,
            ThreadPoolExecutor(self.settings.concurrency) as pool,
            self._progress(f"asking {self.settings.model}", len(questions)) as bar,
        ):
            try:
                tasks = {pool.submit(self._answer, http, q, parse, i, stop): i for i, q in enumerate(questions)}
                for done, task in enumerate(as_completed(tasks), start=1):
                    answers[tasks[task]], problem = task.result()
                    if problem:
                        problems.append(problem)
                        self._check_most_succeed(problems, done, len(questions))
                    bar.advance()
            finally:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
        self.counts.failed += len(problems)
        return answers

    def _answer(
        self, http: httpx.Client, question: Question, parse: Callable[[int, str], Parsed], number: int,
        stop: threading.Event,
    ) -> tuple[Parsed | None, str]:  # fmt: skip
        """The parsed answer and no problem, or nothing and what was wrong with the last attempt."""
        problem, pause = "stopped", FIRST_PAUSE
        for attempt in range(self.settings.retries + 1):
            if stop.is_set():
                break
            try:
                return parse(number, self._text(http, self._request(question, attempt))), ""
            except Unusable as error:
                problem = str(error)
                if isinstance(error, Busy) and attempt < self.settings.retries:
                    stop.wait(min(max(pause, error.wait), LONGEST_PAUSE))
                    pause *= 2
        return None, problem

    def _request(self, question: Question, attempt: int) -> dict[str, Any]:
        system = [{"role": "system", "content": question.system}] if question.system else []
        request: dict[str, Any] = {
            "model": self.settings.model,
            "messages": [*system, {"role": "user", "content": question.user}],
            "max_tokens": self.settings.max_tokens,
            "seed": int.from_bytes(hashlib.sha256(f"{question.seed}:{attempt}".encode()).digest()[:4]) >> 1,
        }
        if question.schema is not None:
            wanted = {"name": "answer", "schema": question.schema}
            request["response_format"] = {"type": "json_schema", "json_schema": wanted}
        temperature = self.settings.temperature
        return request if temperature is None else request | {"temperature": temperature}

    def _text(self, http: httpx.Client, request: dict[str, Any]) -> str:
        text = cached_answer(request)
        with self._lock:
            self.counts.cached += text is not None
            self.counts.requests += text is None
        if text is None:
            try:
                text = text_of(self._fetch(http, request))
            except httpx.HTTPError as error:
                raise Busy(f"{type(error).__name__} {error}".strip()) from None
            with self._lock:  # making a file looks at the process's umask, which is no matter for two threads
                store_answer(request, text)
        return text

    def _fetch(self, http: httpx.Client, request: dict[str, Any]) -> bytes:
        """The body of a response. Raises `Unusable`, httpx.HTTPError, or UserError where no retry can help."""
        deadline = time.monotonic() + self.settings.timeout
        received = bytearray()
        with http.stream("POST", f"{self.settings.url}/chat/completions", json=request) as response:
            for chunk in response.iter_raw():
                received += chunk
                if len(received) > MAX_BYTES:
                    raise Unusable(f"a response of more than {MAX_BYTES >> 20} MiB")
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout(f"no whole answer within {self.settings.timeout:g} s")
        body = self._without_key(bytes(received))
        status, said = response.status_code, excerpt(body.decode(errors="replace"))
        if status in REFUSED:
            raise UserError(
                f"{self.settings.url} answered {status}, {REFUSED[status]}: check data.endpoint.url and"
                f" data.endpoint.model (or --url and --model); a key belongs in the environment variable"
                f" {self.settings.api_key_env}."
                f" The server said: {said}"
            )
        if status != httpx.codes.OK:
            raise Busy(f"HTTP {status}: {said}", _seconds(response.headers.get("Retry-After", "")))
        return body

    def _without_key(self, body: bytes) -> bytes:
        return body.replace(self._key.encode(), b"***") if self._key else body

    def _check_most_succeed(self, problems: Sequence[str], done: int, total: int) -> None:
        if 2 * len(problems) > total or len(problems) == done == HOPELESS:
            raise UserError(
                f"{len(problems)} of the first {done} questions ({total} in all) to {self.settings.url}, model"
                f" {self.settings.model}, got no usable answer, for example: {problems[-1]}. Check that the server"
                f" runs, or name another model; answers are kept in {cache_folder('answers')}: delete it to ask again"
            )


def _key(name: str) -> str:
    key = os.environ.get(name, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(f"the environment variable {name} holds characters that no key has: set it again")
    return key


def _seconds(header: str) -> float:
    """The wait that a server asks for, 0 where it names none (or a date)."""
    return float(header) if header.isdecimal() else 0.0
