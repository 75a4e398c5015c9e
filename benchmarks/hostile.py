"""Requests that mean no good: huge, deep, NaN, wrong types, control characters, path tricks, half-sent.

Every one carries a marker of its own. An answer must be 200 or 4xx, and hold no other request's marker.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MARKER = re.compile(rb"marker(\d+)x")
METHODS = ("r4t_diffusion", "mmr", "no_fanout")
PATHS = (
    "/../etc/passwd", "/assets/..%2f..%2fapp.py", "/assets/%00", "/assets/index.html%00.js", "//v1/retrieve",
    "/v1/retrieve/", "/v1/%2e%2e/metrics", "/%ff%fe", "/" + 9000 * "a", "/v1/retrieve?k=1&k=2", "/assets/%2Fetc",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, -0.0, 2**63, "", " ", "\x00", "\x1b[31m", "‮", "𝕏" * 50, [], {}, [[]], [{}], "1", [None],
    {"$gt": ""}, "'; DROP TABLE items; --", "<script>alert(1)</script>", "../../etc/passwd", "{{7*7}}", "x" * 5000,
)  # fmt: skip
KEYS = ("query", "queries", "vector", "vectors", "k", "method", "seed", "spread", "filters", "map", "__proto__", "")


@dataclass(slots=True)
class Tally:
    """What came back."""

    statuses: Counter[str] = field(default_factory=Counter)
    """By status; `closed` where the server ended the connection without an answer, `open` where it did neither, `left`
    where the client went away first."""
    open: Counter[str] = field(default_factory=Counter)
    """How the requests began whose connection stayed open."""
    leaks: int = 0
    server_errors: list[str] = field(default_factory=list)


def request(number: int, rng: random.Random) -> tuple[bytes, bool]:
    """The bytes of one request, and whether the client then waits for an answer (else it goes away)."""
    marker = f"marker{number}x"
    kind = rng.randrange(12)
    if kind == 0:
        return _head("GET", rng.choice(PATHS), marker) + b"\r\n", True
    if kind == 1:
        return _raw(
            rng.choice([b"[" * 50_000, b'{"query":' * 5000, b"{" * 10, b"\xff" * 100, b'{"query":"\\ud800"}']), marker
        ), True
    if kind == 2:
        text = rng.choice(["NaN", "Infinity", "-Infinity", "1e999", "9" * 400, "0x10", "01", "--1", '"NaN"'])
        return _raw(f'{{"query":"{marker}","spread":{text}}}'.encode(), marker), True
    if kind == 3:
        body = {"query": marker} | {rng.choice(KEYS): rng.choice(VALUES) for _ in range(rng.randint(1, 3))}
        return _json(body, marker), True
    if kind == 4:
        return _json({rng.choice(KEYS): rng.choice(VALUES) for _ in range(rng.randint(0, 4))}, marker), True
    if kind == 5:
        return _json({"query": marker, "filters": {str(rng.choice(VALUES)): rng.choice(VALUES)}}, marker), True
    if kind == 6:
        return _json({"query": f"{marker} {chr(rng.choice([0, 1, 7, 27, 127, 133, 0x200B, 0xFEFF]))}"}, marker), True
    if kind == 7:
        return _json(
            {"queries": [marker] * rng.choice([1, 65, 2000]), "k": rng.choice([1, 100, 101, 10**9])}, marker
        ), True
    if kind == 8:
        size = rng.choice([10, 2 << 20, 10**15])
        return _head("POST", "/v1/retrieve", marker) + f"content-length: {size}\r\n\r\n".encode() + b"x" * 100, False
    if kind == 9:
        return rng.choice(
            [
                b"\x16\x03\x01\x02\x00",
                b"GET / HTTP/9.9\r\nconnection: close\r\n\r\n",
                b"\r\n\r\n\r\n",
                b"POST",
                b"GET /" + b"h" * 70_000,
            ]
        ), rng.random() < 0.5
    if kind == 10:
        method = rng.choice(["PUT", "DELETE", "TRACE", "OPTIONS", "PATCH", "HEAD"])
        return _head(
            method, rng.choice(["/v1/retrieve", "/v1/methods", "/metrics"]), marker
        ) + b"content-length: 0\r\n\r\n", True
    body = {
        "query": f"{marker} soup",
        "method": rng.choice(METHODS),
        "k": rng.randint(1, 20),
        "map": rng.random() < 0.1,
    }
    return _json(body, marker), True


async def attack(
    host: str, port: int, count: int, *, seed: int = 0, clients: int = 16, patience: float = 60.0
) -> Tally:
    """Sends `count` such requests from `clients` connections at a time, to loopback alone.

    patience: seconds that a client waits for an answer before it counts the connection as left open.
    """
    if host not in ("127.0.0.1", "::1", "localhost"):
        raise ValueError(f"{host} is not this machine: hostile requests go to loopback alone")
    rng, tally = random.Random(seed), Tally()
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            sent, waits = request(number, rng)
            try:
                answer = await _exchange(host, port, sent, patience if waits else None)
            except TimeoutError:
                tally.statuses["open"] += 1
                tally.open[sent[:16].decode("latin-1")] += 1
            else:
                _count(tally, number, answer, waits)

    await asyncio.gather(*(client() for _ in range(clients)))
    return tally


async def _exchange(host: str, port: int, sent: bytes, patience: float | None) -> bytes:
    """All that comes back. patience None: what comes back at once. Raises TimeoutError where the end does not come."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(sent)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        if patience is None:
            with contextlib.suppress(TimeoutError, ConnectionError):
                return await asyncio.wait_for(reader.read(1 << 16), 0.02)
            return b""
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(reader.read(-1), patience)
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def _count(tally: Tally, number: int, answer: bytes, waits: bool) -> None:
    if not answer:
        tally.statuses["closed" if waits else "left"] += 1
        return
    status = answer.split(b" ", 2)[1].decode("latin-1") if answer.startswith(b"HTTP/") else "garbled"
    tally.statuses[status] += 1
    if not (status == "200" or status.startswith("4")):
        tally.server_errors.append(answer[:300].decode("latin-1"))
    tally.leaks += sum(int(found) != number for found in MARKER.findall(answer))


def _head(method: str, path: str, marker: str) -> bytes:
    named = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-marker: {marker}\r\n"
    return named.encode("latin-1", "replace")


def _raw(body: bytes, marker: str) -> bytes:
    return (
        _head("POST", "/v1/retrieve", marker)
        + f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        + body
    )


def _json(body: Any, marker: str) -> bytes:
    return _raw(json.dumps(body).encode(), marker)
