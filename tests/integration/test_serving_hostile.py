"""Requests that mean no good: every answer is 200 or 4xx, none holds another's text, and the server stays up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from serving_fixtures import application, listening, running
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from benchmarks.hostile import Tally, attack
from benchmarks.slow_clients import linger
from r4t.config import Serve
from r4t.serving.patience import patient_protocol
from r4t.serving.version import Version

pytestmark = pytest.mark.service


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


def _answering(size: int) -> Any:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": bytes(size)})

    return app


def _taken(url: str, asked: bytes, first: float, each: float = 0.0) -> int:
    """Bytes of an answer that reach a client which reads after `first` seconds, a little every `each` seconds."""
    with socket.socket() as client:
        client.settimeout(20)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", int(urlsplit(url).port or 0)))
        client.sendall(asked)
        time.sleep(first)
        taken = 0
        with contextlib.suppress(ConnectionResetError):  # how a cut ends where much was left
            while part := client.recv(8192):
                taken += len(part)
                time.sleep(each)
        return taken


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("base", [H11Protocol, HttpToolsProtocol])
@pytest.mark.parametrize("size", [100_000, 4_000_000])
def test_who_asks_and_does_not_read_is_cut_off(base: type[asyncio.Protocol], loop: Any, size: int) -> None:
    """Of the smaller answer less is left than uvicorn takes notice of."""
    protocol: Any = patient_protocol(0.3, base)
    config = uvicorn.Config(_answering(size), http=protocol, loop=loop, lifespan="off", log_level="error")
    with listening(config, sending=8192) as url:
        for connection in (b"", b"connection: close\r\n"):
            asked = b"GET / HTTP/1.1\r\nhost: x\r\n" + connection + b"\r\n"
            assert 0 < _taken(url, asked, first=1.5) < size, connection


@pytest.mark.parametrize("base", [H11Protocol, HttpToolsProtocol])
def test_who_reads_slowly_gets_all(base: type[asyncio.Protocol]) -> None:
    size = 600_000
    protocol: Any = patient_protocol(1.0, base)
    config = uvicorn.Config(_answering(size), http=protocol, lifespan="off", log_level="error")
    with listening(config, sending=8192) as url:
        start = time.monotonic()
        asked = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        assert _taken(url, asked, first=0.5, each=0.02) > size
        assert time.monotonic() - start > 2.0, "for longer than the client may take none of it"


def test_clients_that_take_their_time_are_let_go(version: Version) -> None:
    settings = Serve(body_timeout=0.5, max_waiting=4096)
    with running(application(version, settings), settings) as url:
        outcomes = asyncio.run(linger("127.0.0.1", int(urlsplit(url).port or 0), 4, 8.0))
        assert outcomes["drip_head"] == {"closed": 4}
        assert outcomes["drip_body"] == {"408": 4}
        assert outcomes["slow_reader"] == {"cut": 4}
        assert httpx.post(f"{url}/v1/retrieve", json={"query": "leek"}).status_code == 200
