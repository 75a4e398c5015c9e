"""The client of an OpenAI-compatible server, against a real local server that misbehaves on demand."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from r4t.catalog import endpoint
from r4t.catalog.answer_cache import cached_answer
from r4t.catalog.answers import MAX_BYTES
from r4t.catalog.endpoint import Client, Question
from r4t.catalog.prompts import read_queries
from r4t.catalog.source import Item, ItemSet, normalise
from r4t.catalog.written import Writer
from r4t.config import Augment, Endpoint
from r4t.errors import UserError
from r4t.types import Query

KEY = "sk-very-secret-0123456789"
Reply = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


@dataclass
class Server:
    """Answers each request by `reply`, and keeps what it received."""

    url: str
    reply: Reply
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    def client(self, **settings: Any) -> Client:
        wanted = {"url": self.url, "model": "m", "retries": 1, "timeout": 30.0, **settings}
        return Client(Endpoint(**wanted), lambda *_: nullcontext(Silence()))


class Silence:
    def advance(self) -> None:
        return


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    for name, value in {"Content-Length": str(len(body)), **named}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def completion(text: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def says(text: Any) -> Reply:
    return lambda handler, _: send(handler, completion(text))


def status(code: int, body: bytes = b"no", **headers: str) -> Reply:
    return lambda handler, _: send(handler, body, code, **headers)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("R4T_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            running.requests.append({"path": self.path, **body})
            running.keys.append(self.headers.get("Authorization"))
            try:
                running.reply(self, body)
            except OSError:  # the client hung up, as it should on an endless answer
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            return

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    running = Server(f"http://127.0.0.1:{http.server_port}/v1", says('["late lunch"]'))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    http.shutdown()
    thread.join()
    http.server_close()


def ask(client: Client, n: int = 1) -> list[Any]:
    questions = [Question(user=f"question {i}", system="be brief", seed="7") for i in range(n)]
    return client.ask(questions, lambda _, text: read_queries(text))


def drip(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
    send(handler, b"", Content_Length="100000")
    while True:
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def flood(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
    send(handler, b"", Content_Length=str(1 << 30))
    while True:
        handler.wfile.write(b"x" * (1 << 16))


def hang_up(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
    send(handler, b"{", Content_Length="1000")
    handler.close_connection = True


def sleep(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
    time.sleep(2.5)
    send(handler, completion('["too late"]'))


def limit(fault: str) -> float:
    """Seconds to wait for an answer: short where the fault is that none comes."""
    return IMPATIENT if fault in ("timeout", "drip") else 30.0


def test_a_request_has_the_wire_format_and_the_key_of_the_environment(server: Server) -> None:
    assert ask(server.client(temperature=0.5, max_tokens=9)) == [(["late lunch"], 0)]
    (request,) = server.requests
    assert isinstance(request.pop("seed"), int)
    assert request == {
        "path": "/v1/chat/completions",
        "model": "m",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "question 0"}],
        "temperature": 0.5,
        "max_tokens": 9,
    }
    assert server.keys == [f"Bearer {KEY}"]


def test_no_key_is_sent_where_none_is_set_and_no_temperature_where_it_is_the_servers(server: Server) -> None:
    ask(server.client(api_key_env="NO_SUCH_KEY", temperature=None))
    assert server.keys == [None]
    assert "temperature" not in server.requests[0]


def test_answers_come_in_the_order_of_the_questions(server: Server) -> None:
    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        number = int(body["messages"][1]["content"].split()[1])
        time.sleep(0.02 * (number % 3))
        send(handler, completion(json.dumps([f"answer {number}"])))

    server.reply = reply
    answers = ask(server.client(concurrency=5), 20)
    assert [answer[0] for answer in answers] == [[f"answer {i}"] for i in range(20)]


IMPATIENT = 1.0  # seconds


FAULTS = {
    "not JSON": says("sorry"),
    "wrong shape": says('{"queries": ["a b"]}'),
    "an empty answer": says(""),
    "no text": says(None),
    "no completion": status(200, b"<html>"),
    "error status": status(500),
    "rate limit": status(429, Retry_After="0"),
    "bad request": status(400),
    "redirect": status(307, Location="http://127.0.0.1:9/"),
    "too long": flood,
    "hang-up": hang_up,
    "timeout": sleep,
    "drip": drip,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_question_is_asked_again_after_any_fault(server: Server, fault: str) -> None:
    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        (FAULTS[fault] if len(server.requests) == 1 else says('["late lunch"]'))(handler, body)

    server.reply = reply
    client = server.client(timeout=limit(fault))
    assert ask(client) == [(["late lunch"], 0)]
    assert (client.counts.requests, client.counts.failed) == (2, 0)
    assert len({request["seed"] for request in server.requests}) == 2, "the second attempt is another request"


@pytest.mark.parametrize("fault", FAULTS)
def test_after_the_last_attempt_the_run_stops_with_the_endpoint_and_a_sample(server: Server, fault: str) -> None:
    server.reply = FAULTS[fault]
    with pytest.raises(
        UserError, match=r"1 of the first 1 questions .*127\.0\.0\.1.* model m, .*for example: .+"
    ) as error:
        ask(server.client(timeout=limit(fault)))
    assert len(server.requests) == 2
    assert len(str(error.value)) < 900


def test_failures_up_to_a_half_cost_their_rows_alone(server: Server) -> None:
    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        even = int(body["messages"][1]["content"].split()[1]) % 2 == 0
        (says('["late lunch"]') if even else says("nonsense"))(handler, body)

    server.reply = reply
    client = server.client()
    answers = ask(client, 30)
    assert [answer is None for answer in answers] == [bool(i % 2) for i in range(30)]
    assert client.counts.failed == 15
    server.reply = says("nonsense")
    with pytest.raises(UserError, match="questions"):
        client.ask([Question(user=f"other {i}") for i in range(3)], lambda _, text: read_queries(text))


def test_a_dead_server_is_given_up_after_a_few_questions(server: Server) -> None:
    server.reply = status(503)
    with pytest.raises(UserError, match="16 of the first 16 questions"):
        ask(server.client(retries=0), 1000)
    assert len(server.requests) < 40


def test_nobody_at_the_address_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R4T_CACHE", str(tmp_path))
    client = Server("http://127.0.0.1:9/v1", says("")).client(retries=0)
    with pytest.raises(UserError, match=r"(?s)http://127.0.0.1:9/v1.*ConnectError.*server"):
        ask(client)


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_refusal_stops_at_once_and_names_the_variable_but_not_the_key(server: Server, code: int) -> None:
    server.reply = status(code, f"wrong key {KEY}".encode())
    with pytest.raises(UserError, match=rf"answered {code}.*OPENAI_API_KEY.*wrong key \*\*\*") as error:
        ask(server.client(), 50)
    assert KEY not in str(error.value)
    assert len(server.requests) < 15


@pytest.mark.parametrize(
    ("fault", "problem"),
    [("too long", "more than 1 MiB"), ("drip", "no whole answer within 1 s"), ("timeout", "ReadTimeout"),
     ("hang-up", "RemoteProtocolError"), ("error status", "HTTP 500: 'no'"), ("no completion", "not JSON: '<html>'"),
     ("no text", "without text"), ("wrong shape", "no JSON array"), ("redirect", "HTTP 307")],
)  # fmt: skip
def test_the_sample_says_what_was_wrong(server: Server, fault: str, problem: str) -> None:
    server.reply = FAULTS[fault]
    with pytest.raises(UserError, match=problem):
        ask(server.client(timeout=limit(fault), retries=0))


def test_the_second_time_the_cache_answers_also_what_was_nonsense(server: Server) -> None:
    server.reply = lambda handler, body: (says("nonsense") if len(server.requests) % 2 else says('["late lunch"]'))(
        handler, body
    )
    first = ask(server.client(concurrency=1), 3)
    asked = len(server.requests)
    client = server.client(url="http://127.0.0.1:9/v1")  # nobody there
    assert ask(client, 3) == first
    assert (client.counts.requests, client.counts.cached) == (0, asked)


@pytest.mark.parametrize("change", [{"model": "other"}, {"temperature": 0.1}, {"max_tokens": 7}])
def test_another_model_or_parameter_is_another_question(server: Server, change: dict[str, Any]) -> None:
    ask(server.client())
    ask(server.client(**change))
    assert len(server.requests) == 2


def test_failed_requests_are_not_cached_and_a_damaged_file_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.reply = status(500)
    with pytest.raises(UserError):
        ask(server.client())
    assert not list((tmp_path / "cache").rglob("*.json"))
    server.reply = says('["late lunch"]')
    ask(server.client())
    (path,) = (tmp_path / "cache").rglob("*.json")
    for damage in ("{", "[]", '{"answer": 3}', "\udcff"):
        path.write_bytes(damage.encode(errors="surrogateescape"))
        assert cached_answer(json.loads('{"x": 1}')) is None
        assert ask(server.client()) == [(["late lunch"], 0)]
    assert json.loads(path.read_text())["answer"] == '["late lunch"]'


def test_no_file_holds_the_key(server: Server, tmp_path: Path) -> None:
    server.reply = says(json.dumps([f"your key {KEY}"]))
    assert ask(server.client()) == [(["your key ***"], 0)]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY in path.read_text()]


def test_a_key_that_no_header_can_hold_is_refused_unseen(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a\nb")
    with pytest.raises(UserError, match="OPENAI_API_KEY") as error:
        server.client()
    assert "sk-a" not in str(error.value)


def test_a_cache_that_cannot_be_written_says_so(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("R4T_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="R4T_CACHE"):
        ask(server.client())


def test_an_answer_of_the_greatest_size_is_read(server: Server) -> None:
    text = json.dumps(["late lunch", "x" * (MAX_BYTES - 200)])
    server.reply = says(text)
    assert ask(server.client()) == [(["late lunch"], 1)]


def writer(server: Server, dropped: Counter[str]) -> Writer:
    return Writer(client=server.client(), domain="food", seed=0, dropped=dropped)


def test_broad_queries_are_distinct_balanced_split_and_accounted_for(server: Server) -> None:
    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        seed = body["seed"] % 10_000
        texts = [f"Idea {seed} {i} lunch" for i in range(9)] + ["same for  all", "short", "green salad bowl"]
        send(handler, completion(json.dumps(texts)))

    server.reply = reply
    dropped: Counter[str] = Counter()
    queries = writer(server, dropped).queries(100, taken=["Green Salad"])
    assert len({normalise(q.text) for q in queries}) == len({q.query_id for q in queries}) == 100
    assert Counter(q.split for q in queries) == {"train": 80, "valid": 10, "test": 10}
    families = Counter(q.query_id.split("-")[0] for q in queries)
    assert len(families) == 8
    assert max(families.values()) - min(families.values()) <= 2, "also where the last queries are cut off"
    assert not [q for q in queries if "green salad" in q.text]
    assert dropped["written queries of too few or too many words"] == len(server.requests)
    assert dropped["written queries that name an item"] == len(server.requests)
    assert dropped["written queries that repeat another"] >= len(server.requests) - 1
    assert 12 * len(server.requests) == 100 + sum(dropped.values())


def test_too_few_different_queries_name_the_number(server: Server) -> None:
    with pytest.raises(UserError, match=r"wrote 1 different queries, not 50: set data.n_queries=1"):
        writer(server, Counter()).queries(50, taken=[])


def test_untitled_sets_get_a_title_or_are_counted(server: Server) -> None:
    server.reply = lambda handler, body: says("Beach day" if "shirt" in body["messages"][1]["content"] else "x")(
        handler, body
    )
    sets = [ItemSet(title=title, split="test", item_ids=(i,)) for title, i in (("", "a"), ("Gym", "b"), (" ", "b"))]
    dropped: Counter[str] = Counter()
    titled = writer(server, dropped).titles(sets, {"a": "shirt", "b": "shoe"})
    assert [s.title for s in titled] == ["Beach day", "Gym"]
    assert dropped == {"sets without a title": 1}
    assert writer(server, dropped).titles(sets[1:2], {}) == sets[1:2]


def test_written_sets_come_from_the_pool_of_their_own_training_set(server: Server) -> None:
    items = [Item(item_id=str(i), text=f"thing {i}", name=f"thing {i}") for i in range(30)]
    queries = [Query(query_id="a", text="one", split="train", references=(1, 2)),
               Query(query_id="b", text="two", split="test", references=(3, 4))]  # fmt: skip
    entries = [{"items": [0, 1, 2], "query": "new style"}, {"items": [0, 0, 1], "query": "bad one"}]
    server.reply = says(json.dumps(entries))
    dropped: Counter[str] = Counter()
    settings = Augment(copies=2, pool=8, shortlist=5, size=3)
    made = list(writer(server, dropped).copies(items, queries, settings))
    prompt = server.requests[0]["messages"][1]["content"]
    listed = [int(line.split()[-1]) for line in prompt.splitlines() if line.split(".")[0].isdigit()]
    assert len(server.requests) == 1, "the held-out set is no one's business"
    assert len(set(listed)) == len(listed) == 8
    assert {1, 2} <= set(listed)
    assert [(q.text, q.references, q.split, q.origin) for q in made] == [("new style", tuple(listed[:3]), "train", "a")]
    assert dropped == {"written sets of the wrong size, with unknown items or an unfit query": 1}
