"""The client: what it sends, when it asks again, and what it says when a server refuses."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest

from r4t.client import Client, ServerError
from r4t.errors import UserError

ANSWER = {
    "lineage": "abc",
    "method": "mmr",
    "k": 1,
    "seed": 0,
    "spread": 1.0,
    "milliseconds": {"encode": 1, "generate": 1, "search": 1, "total": 3},
    "sets": [
        {
            "query": "leek",
            "items": [
                {"item_id": "i", "name": "n", "score": 1, "row": 0, "alignment": 1, "novelty": 1, "fields": {"a": 1}}
            ],
            "metrics": {"alignment": 1.0, "later": 2},
        }
    ],
    "later": True,
}


class Server:
    """Gives its answers one after another, the last one for ever, and keeps what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked, self.slept = list(answers), list[httpx.Request](), list[float]()

    def client(self, **given: Any) -> Client:
        return Client("http://server", transport=httpx.MockTransport(self._answer), sleep=self.slept.append, **given)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def error(status: int, code: str = "overloaded", **headers: str) -> httpx.Response:
    body = {"error": {"code": code, "message": "ask again", "field": "k"}}
    return httpx.Response(status, json=body, headers=headers)


@pytest.mark.parametrize(
    ("queries", "sent"),
    [
        ("leek", {"query": "leek"}),
        (["leek", "rice"], {"queries": ["leek", "rice"]}),
        (np.array([1.0, 0.5], dtype=np.float32), {"vector": [1.0, 0.5]}),
        (np.array([[1.0, 0.5]], dtype=np.float32), {"vectors": [[1.0, 0.5]]}),
    ],
)
def test_a_request_is_what_was_asked(queries: Any, sent: dict[str, Any]) -> None:
    server = Server(httpx.Response(200, json=ANSWER))
    with server.client() as client:
        answer = client.retrieve(queries, 1, method="mmr", filters={"meal": ("lunch",)})
    assert answer.sets[0].items[0].item_id == "i"
    assert answer.sets[0].items[0].fields == {"a": 1}
    rest = {"k": 1, "method": "mmr", "seed": 0, "spread": 1.0, "map": False, "filters": {"meal": ["lunch"]}}
    assert json.loads(server.asked[0].content) == sent | rest


def test_a_server_that_died_or_stands_still_is_asked_again_and_one_that_refused_is_not() -> None:
    dead = httpx.Response(500, text="Internal Server Error")  # as Ray's proxy says it
    early = httpx.Response(404, text="Path '/v1/retrieve' not found.")  # the same before the application is up
    still = httpx.Response(408, text="Request 7 timed out after 50.0s.")  # the same of a replica that is stopped
    server = Server(early, dead, still, httpx.Response(502), httpx.Response(200, json=ANSWER))
    with server.client() as client:
        assert client.retrieve("leek").lineage == "abc"
    for refused in (error(500, "internal"), error(408, "request_timeout"), error(404, "not_found")):
        server = Server(refused)
        with server.client() as client, pytest.raises(ServerError):
            client.retrieve("leek")
        assert len(server.asked) == 1


def test_an_overloaded_server_is_asked_again_after_what_it_says() -> None:
    server = Server(error(429, **{"retry-after": "2"}), error(503), httpx.Response(200, json=ANSWER))
    with server.client() as client:
        assert client.retrieve("leek").lineage == "abc"
    assert len(server.asked) == 3
    assert 2 < server.slept[0] < 2.2
    assert 0.05 < server.slept[1] < 0.3


@pytest.mark.parametrize("said", ["nan", "-5", "soon", "1e9"])
def test_a_strange_retry_after_neither_stops_nor_hurries_it(said: str) -> None:
    server = Server(error(429, **{"retry-after": said}), httpx.Response(200, json=ANSWER))
    with server.client() as client:
        client.retrieve("leek")
    assert 0 < server.slept[0] <= 30


def test_it_gives_up_in_the_end_and_at_once_where_asking_again_is_no_use() -> None:
    server = Server(error(429))
    with server.client(retries=2) as client, pytest.raises(ServerError) as refused:
        client.retrieve("leek")
    assert (refused.value.status, refused.value.code, refused.value.field) == (429, "overloaded", "k")
    assert len(server.asked) == 3
    server = Server(error(422, "bad_request"))
    with server.client() as client, pytest.raises(ServerError):
        client.retrieve("leek")
    assert len(server.asked) == 1
    with (
        Server(httpx.Response(502, text="<html>")).client() as client,
        pytest.raises(ServerError, match="answered 502"),
    ):
        client.retrieve("leek")


def test_a_server_out_of_reach_is_said_with_what_starts_one() -> None:
    server = Server(httpx.ConnectError("refused"))
    with server.client(retries=1) as client:
        assert not client.ready()
        with pytest.raises(UserError, match="r4t serve RUN"):
            client.retrieve("leek")
    assert len(server.asked) == 3


def test_the_key_goes_along_and_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R4T_SERVE_KEY", "from outside")
    server = Server(httpx.Response(200, json=ANSWER))
    with server.client() as client, server.client(key="given") as other:
        client.retrieve("leek")
        other.retrieve("leek")
    assert [one.headers["authorization"] for one in server.asked] == ["Bearer from outside", "Bearer given"]
