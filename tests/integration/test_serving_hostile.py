"""Requests that mean no good: every answer is 200 or 4xx, none holds another's text, and the server stays up."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from serving_fixtures import application, exported, listening, opened, running
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from benchmarks.hostile import Tally, attack
from r4t.config import Serve
from r4t.serving.patience import patient_protocol
from r4t.serving.version import Version


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return opened(exported(tmp_path_factory.mktemp("hostile")))


def test_hostile_requests_get_200_or_4xx_and_nothing_leaks(version: Version) -> None:
    settings = Serve(body_timeout=5, max_waiting=4096)
    with running(application(version, settings), settings) as url:
        where = urlsplit(url)
        tally = asyncio.run(attack(str(where.hostname), int(where.port or 0), 600, seed=1))
        assert tally.server_errors == []
        assert tally.leaks == 0
        assert tally.statuses["garbled"] == 0
        assert not tally.open, "no connection is left without an answer or an end"
        assert {"200", "400", "404", "405", "422"} <= set(tally.statuses)
        assert httpx.post(f"{url}/v1/retrieve", json={"query": "leek"}).status_code == 200


def test_a_connection_that_a_server_never_ends_is_counted_as_open() -> None:
    async def deaf() -> Tally:
        server = await asyncio.start_server(lambda *_: asyncio.sleep(60), "127.0.0.1", 0)
        async with server:
            return await attack("127.0.0.1", server.sockets[0].getsockname()[1], 6, clients=6, patience=0.2)

    tally = asyncio.run(deaf())
    assert tally.statuses["open"] == sum(tally.open.values()) > 0
    assert set(tally.statuses) <= {"open", "left"}


def test_the_attack_stays_on_this_machine() -> None:
    with pytest.raises(ValueError, match="loopback alone"):
        asyncio.run(attack("192.0.2.1", 80, 1))


@pytest.mark.parametrize("sent", [b"", b"POST /v1/retr", b"POST /v1/retrieve HTTP/1.1\r\nhost: x\r\n"])
def test_a_connection_whose_request_never_arrives_is_closed(version: Version, sent: bytes) -> None:
    settings = Serve(body_timeout=0.5)
    with running(application(version, settings), settings) as url:
        with socket.create_connection(("127.0.0.1", int(urlsplit(url).port or 0)), timeout=20) as silent:
            silent.sendall(sent)
            start = time.monotonic()
            assert silent.recv(100) == b""
            assert 0.3 < time.monotonic() - start < 15
        assert httpx.get(f"{url}/healthz").status_code == 200


async def _slow(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await asyncio.sleep(1.2)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize("base", [H11Protocol, HttpToolsProtocol])
def test_both_protocols_wait_for_a_head_and_not_for_an_answer(base: type[asyncio.Protocol]) -> None:
    config = uvicorn.Config(_slow, http=patient_protocol(0.4, base), lifespan="off", log_level="error")  # type: ignore[arg-type]
    with listening(config) as url, socket.create_connection(("127.0.0.1", int(urlsplit(url).port or 0)), 20) as one:
        for _ in range(2):
            one.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n")
            time.sleep(0.1)
            one.sendall(b"\r\n")
            answer = b""
            while not answer.endswith(b"ok"):
                answer += one.recv(1000)
            time.sleep(0.6)  # idle between two requests it may be for longer than a head may take
        one.sendall(b"GET / HTTP/1.1\r\nhost:")
        start = time.monotonic()
        assert one.recv(100) == b""
        assert 0.2 < time.monotonic() - start < 15
