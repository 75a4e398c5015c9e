"""More than a server can do, clients and servers that are too slow, and a server that stops."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_fixtures import application, listening, running, send

from jobs.serve import server_config
from r4t.client import Client
from r4t.config import Serve
from r4t.errors import UserError
from r4t.serving.app import serving_app
from r4t.serving.draining import DrainingServer
from r4t.serving.methods import Writer
from r4t.serving.service import Service
from r4t.serving.version import Version, open_version

pytestmark = pytest.mark.service

GOOD = {"query": "leek"}


class Slow:
    """A version whose answers wait for a permission."""

    def __init__(self, version: Version) -> None:
        self.let, self.asked = threading.Event(), threading.Event()
        self.real, self.lineage, self.methods, self.catalogue = version, "slow", version.methods, version.catalogue
        self.default = version.default

    def answer(self, asked: Any) -> Any:
        self.asked.set()
        assert self.let.wait(20)
        return self.real.answer(asked)


def test_more_than_may_wait_is_turned_away_and_then_served_again(version: Version) -> None:
    slow = Slow(version)
    app = application(slow, Serve(max_waiting=4, max_queries=4))  # type: ignore[arg-type]

    async def overload() -> tuple[list[httpx.Response], httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            first = [asyncio.create_task(client.post("/v1/retrieve", json=GOOD)) for _ in range(4)]
            await asyncio.sleep(0.2)
            refused = await client.post("/v1/retrieve", json=GOOD)
            slow.let.set()
            return [*await asyncio.gather(*first), await client.post("/v1/retrieve", json=GOOD)], refused

    served, refused = asyncio.run(overload())
    assert [response.status_code for response in served] == [200] * 5
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["error"]["code"] == "overloaded"


def test_nobody_waits_for_what_a_language_model_writes(folder: Path) -> None:
    let = threading.Event()

    def write(queries: list[str], seeds: list[int]) -> list[tuple[str, ...]]:
        assert queries == ["warm"] or let.wait(20)
        return [(f"raw {text}", str(seed)) for text, seed in zip(queries, seeds, strict=True)]

    app = application(open_version([folder], "onnx", 1, Writer(write=write, lineage="policy")))  # type: ignore[arg-type]

    async def both() -> tuple[list[httpx.Response], httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            slow = asyncio.create_task(client.post("/v1/retrieve", json=GOOD | {"method": "r4t_folm"}))
            await asyncio.sleep(0.1)
            quick = [await client.post("/v1/retrieve", json=GOOD) for _ in range(2)]
            assert not slow.done()
            let.set()
            return quick, await slow

    quick, slow = asyncio.run(both())
    assert [response.status_code for response in [*quick, slow]] == [200] * 3


def test_what_takes_too_long_is_given_up(version: Version) -> None:
    slow = Slow(version)
    app = application(slow, Serve(timeout=0.1))  # type: ignore[arg-type]
    (response,) = send(app, GOOD)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "timeout")
    slow.let.set()
    assert send(app, GOOD)[0].status_code == 200


def test_the_client_names_a_server_that_is_too_slow(version: Version) -> None:
    slow = Slow(version)
    with running(application(slow)) as url, Client(url) as client:  # type: ignore[arg-type]
        with (
            Client(url, timeout=0.4) as hasty,
            pytest.raises(UserError, match=r"did not answer within 0\.4 s: ask with fewer queries"),
        ):
            hasty.retrieve("leek")
        assert slow.asked.is_set()
        slow.let.set()
        assert client.retrieve("leek").lineage == "slow"
        assert 'r4t_sets_total{method="r4t_diffusion"} 2.0' in httpx.get(f"{url}/metrics").text, "asked once"


def test_the_client_names_an_address_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with Client(url, timeout=0.3) as client:
            assert not client.ready()
            with pytest.raises(UserError, match="did not answer within"):
                client.methods()
    with Client("127.0.0.1:8000") as client, pytest.raises(UserError, match="give http://HOST:PORT"):
        client.methods()


def test_a_body_that_does_not_arrive_is_given_up(version: Version) -> None:
    with running(application(version, Serve(body_timeout=0.3))) as url:

        def dripping() -> Any:
            yield b"{"
            time.sleep(1.0)
            yield b"}"

        with httpx.Client() as client:
            response = client.post(
                f"{url}/v1/retrieve", content=dripping(), headers={"content-type": "application/json"}
            )
            assert response.status_code == 408
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_stopping_finishes_what_was_admitted(version: Version) -> None:
    slow = Slow(version)
    settings = Serve()
    answered: list[httpx.Response] = []
    with running(application(slow, settings)) as url:  # type: ignore[arg-type]
        thread = threading.Thread(
            target=lambda: answered.append(httpx.post(f"{url}/v1/retrieve", json=GOOD, timeout=20))
        )
        thread.start()
        assert slow.asked.wait(20)
        threading.Timer(0.3, slow.let.set).start()
    thread.join()
    assert answered[0].status_code == 200


def test_a_stopping_server_says_so_until_it_has_answered_what_it_admitted(version: Version) -> None:
    slow, settings = Slow(version), Serve()
    service = Service(slow, settings)  # type: ignore[arg-type]
    server = DrainingServer(server_config(serving_app(service, settings), settings), service)
    answered: list[httpx.Response] = []
    with listening(server) as url:
        assert httpx.get(f"{url}/readyz").status_code == 200
        asking = threading.Thread(
            target=lambda: answered.append(httpx.post(f"{url}/v1/retrieve", json=GOOD, timeout=20))
        )
        asking.start()
        assert slow.asked.wait(20)
        server.handle_exit(signal.SIGTERM, None)
        for _ in range(3):
            ready = httpx.get(f"{url}/readyz")
            assert (ready.status_code, ready.json()["error"]["code"]) == (503, "stopping")
            refused = httpx.post(f"{url}/v1/retrieve", json=GOOD)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
            assert refused.headers["retry-after"] == "1"
            time.sleep(0.3)
        assert httpx.get(f"{url}/healthz").status_code == 200
        slow.let.set()
        asking.join()
        assert answered[0].status_code == 200
        deadline = time.monotonic() + 20
        while _listens(url):
            assert time.monotonic() < deadline


def _listens(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 503
    except httpx.TransportError:
        return False
