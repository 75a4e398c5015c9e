"""The HTTP server: OpenRLHF's format, limits, keys, and one structured error for each kind of mistake."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from interop_fixtures import answer, configuration, prompt, reward
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from r4t.errors import UserError
from r4t.interop.probe import check_server
from r4t.interop.server import Limits, reward_app
from r4t.interop.service import RewardService
from r4t.interop.urls import with_key


def body(rows: list[int], **changed: Any) -> dict[str, Any]:
    good = {
        "query": [prompt(row) + answer(row) for row in rows],
        "prompts": [prompt(row) for row in rows],
        "labels": [f"q{row}" for row in rows],
    }
    return good | changed


def post(app: Starlette, *requests: Any, path: str = "/get_reward", **headers: str) -> list[httpx.Response]:
    """Answers to concurrent requests; a string is sent as it is."""

    async def send() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            contents = [one if isinstance(one, str) else json.dumps(one) for one in requests]
            return await asyncio.gather(*(client.post(path, content=one, headers=headers) for one in contents))

    return asyncio.run(send())


def test_the_response_is_openrlhfs() -> None:
    own = reward()
    (response,) = post(reward_app(RewardService(own)), body([0, 1, 2]))
    assert response.status_code == 200
    found = response.json()
    expected = own.scorer.score([0, 1, 2], [answer(row) for row in range(3)])
    assert found["rewards"] == found["scores"] == pytest.approx(expected.rewards.tolist(), abs=1e-6)
    assert found["extra_logs"]["r4t/diversity"] == pytest.approx(expected.terms["diversity"].tolist(), abs=1e-6)


def test_concurrent_requests_are_scored_together() -> None:
    service = RewardService(reward(), wait=1.0, most=8)
    responses = post(reward_app(service), *[body([i % 4]) for i in range(8)])
    assert [response.status_code for response in responses] == [200] * 8
    assert service.stats()["batches"] == 1
    assert responses[1].json()["rewards"] != responses[2].json()["rewards"]


@pytest.mark.parametrize(
    ("request_", "status", "kind", "message"),
    [
        ("{", 400, "bad_request", "not JSON"),
        ("[" * 8000, 400, "bad_request", "not JSON"),
        ([1], 400, "bad_request", "three lists"),
        (body([0], labels="q0"), 400, "bad_request", "three lists"),
        (body([]), 400, "bad_request", "no answer"),
        (body([0], query=[3]), 400, "bad_request", "strings alone"),
        (body([0, 1], labels=["q0"]), 422, "bad_input", "2 answers came with 2 prompts and 1 labels"),
        (body([0], labels=[None]), 422, "bad_input", "without a label"),
        (body([0], labels=["q77"]), 422, "bad_input", "names no query"),
        (body([0], prompts=["go on"]), 422, "bad_input", "template hides it"),
        (body([0, 1, 2, 3, 0]), 413, "too_large", "at most 4 answers"),
        (body([0], labels=["x" * 9000]), 413, "too_large", "at most 9000 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else None,
)
def test_a_mistake_is_one_structured_error(request_: Any, status: int, kind: str, message: str) -> None:
    app = reward_app(RewardService(reward()), limits=Limits(body_bytes=9000, answers=4))
    bad, good = post(app, request_, body([0]))
    assert bad.status_code == status
    assert bad.json()["error"]["type"] == kind
    assert message in bad.json()["error"]["message"]
    assert good.status_code == 200, "the others are served"


def test_a_failing_objective_is_a_500_that_says_so() -> None:
    app = reward_app(RewardService(reward(configuration(invalid_reward=float("nan")))))
    (response,) = post(app, body([0], query=[prompt(0) + "?"]))
    assert response.status_code == 500
    assert "is nan" in response.json()["error"]["message"]


def test_too_many_waiting_answers_are_turned_away() -> None:
    app = reward_app(RewardService(reward(), wait=0.5), limits=Limits(waiting=2))
    statuses = sorted(response.status_code for response in post(app, *[body([0])] * 4))
    assert statuses == [200, 200, 503, 503]
    assert post(app, body([0]))[0].status_code == 200, "their places are free again"


def test_with_a_key_nothing_but_health_answers_without_it() -> None:
    app = reward_app(RewardService(reward()), key="sécret")
    assert post(app, body([0]))[0].json()["error"]["type"] == "unauthorised"
    assert post(app, body([0]), authorization="Bearer wrong")[0].status_code == 401
    assert post(app, body([0]), authorization="Basic %%%")[0].status_code == 401
    assert post(app, body([0]), authorization=httpx.BasicAuth("r4t", "sécret")._auth_header)[0].status_code == 200
    assert httpx.Client(transport=_Sync(app)).get("http://server/stats").status_code == 401
    assert httpx.Client(transport=_Sync(app)).get("http://server/health").json()["status"] == "ok"


class _Sync(httpx.BaseTransport):
    def __init__(self, app: Starlette) -> None:
        self.app = app

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def send() -> httpx.Response:
            response = await httpx.ASGITransport(self.app).handle_async_request(request)
            return httpx.Response(response.status_code, content=await response.aread())

        return asyncio.run(send())


@contextmanager
def running(app: Starlette) -> Iterator[str]:
    """The application on a port of its own; yields the URL of its rewards."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/get_reward"
    finally:
        server.should_exit = True
        thread.join(10)


def stand_in(answer: Any) -> Starlette:
    """A server that gives the same answer to everything; a number: seconds before it says anything."""

    async def respond(_: Request) -> Any:
        if isinstance(answer, float):
            await asyncio.sleep(answer)
        return PlainTextResponse(answer) if isinstance(answer, str) else JSONResponse(answer)

    return Starlette(routes=[Route("/get_reward", respond, methods=["POST"])])


def test_the_probe_accepts_this_runs_server_and_no_other() -> None:
    own = reward()
    key = "k/@:,é"
    with running(reward_app(RewardService(own), key=key)) as url:
        keyed = with_key(url, key)
        check_server(keyed, own)
        with pytest.raises(UserError, match="answered 401"):
            check_server(url, own)
        with pytest.raises(UserError, match="it serves another run or configuration"):
            check_server(keyed, reward(configuration(weights={"distinct": 0.5})))
    with pytest.raises(UserError, match=r"no reward server answers.*r4t serve-reward RUN"):
        check_server(url, own, timeout=2)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (3.0, r"did not answer within 0\.2 s"),
        ("hello", "did not answer in JSON"),
        ({"reward": [1.0]}, r"where .*rewards.* is expected"),
        ({"rewards": [1.0, 2.0]}, "is expected"),
        ({"rewards": ["1"]}, "is expected"),
        ([0.5], "is expected"),
    ],
)
def test_a_slow_or_wrong_shaped_server_is_refused(answer: Any, message: str) -> None:
    with running(stand_in(answer)) as url, pytest.raises(UserError, match=message):
        check_server(url, reward(), timeout=0.2 if isinstance(answer, float) else 5)


def test_a_key_in_a_url_is_in_no_message() -> None:
    with pytest.raises(UserError) as refused:
        check_server("http://r4t:hidden@127.0.0.1:9/get_reward", reward(), timeout=1)
    assert "hidden" not in str(refused.value)
