"""A served catalogue small enough to export in seconds, and a server of it on a port of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from export_fixtures import NAMES, made_run
from starlette.applications import Starlette

from jobs.export import export
from jobs.serve import server_config
from r4t.config import Serve
from r4t.serving.app import serving_app
from r4t.serving.measures import Measures
from r4t.serving.messages import RetrieveResponse
from r4t.serving.service import Service
from r4t.serving.version import Version, open_version

COLUMNS: dict[str, list[Any]] = {
    "how": [name.split()[0] for name in NAMES],
    "tags": [[name.split()[1], "food"] for name in NAMES],
    "minutes": [len(name) for name in NAMES],
    "price": [0.5 * row if row else None for row in range(len(NAMES))],
}


def exported(folder: Path) -> Path:
    """A run's retriever with its graph, in `folder/exported`; the run stays in `folder/run`."""
    export(made_run(folder / "run", **COLUMNS), folder / "exported", onnx=True)
    return folder / "exported"


def opened(folder: Path) -> Version:
    return open_version([folder], "onnx", 1)


def application(version: Version, settings: Serve | None = None, **given: Any) -> Starlette:
    settings = settings or Serve()
    service = Service(version, settings)
    return serving_app(service, settings, measures=Measures(service), **given)


def send(app: Starlette, *requests: Any, path: str = "/v1/retrieve", **headers: str) -> list[httpx.Response]:
    """Answers to concurrent requests; bytes and strings are sent as they are."""

    async def all_of_them() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            bodies = [one if isinstance(one, str | bytes) else json.dumps(one) for one in requests]
            sent = {"content-type": "application/json"} | headers
            return await asyncio.gather(*(client.post(path, content=one, headers=sent) for one in bodies))

    return asyncio.run(all_of_them())


def get(app: Starlette, path: str, **headers: str) -> httpx.Response:
    async def it() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(it())


@contextmanager
def running(app: Starlette, settings: Serve | None = None) -> Iterator[str]:
    """The application on a port of its own; yields its address."""
    with listening(server_config(app, settings or Serve())) as address:
        yield address


@contextmanager
def listening(config: uvicorn.Config | uvicorn.Server, sending: int | None = None) -> Iterator[str]:
    """A server on a port of its own; yields its address. sending: bytes that the kernel keeps of an answer."""
    server = config if isinstance(config, uvicorn.Server) else uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        if sending is not None:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sending)
        thread = threading.Thread(target=server.run, args=([taken],), daemon=True)
        thread.start()
        while not server.started:
            thread.join(0.01)
        try:
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


def found(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    assert RetrieveResponse.model_validate_json(response.content).model_extra == {}, "nothing undocumented"
    answer: dict[str, Any] = response.json()
    return answer
