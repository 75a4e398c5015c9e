"""Requests that mean no good: every answer is 200 or 4xx, none holds another's text, and the server stays up."""

from __future__ import annotations

import asyncio
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest
from serving_fixtures import application, exported, opened, running

from benchmarks.hostile import attack
from r4t.config import Serve
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
        assert {"200", "400", "404", "405", "422"} <= set(tally.statuses)
        assert httpx.post(f"{url}/v1/retrieve", json={"query": "leek"}).status_code == 200


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
