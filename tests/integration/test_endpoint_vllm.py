"""Queries and verdicts through a real OpenAI-compatible server: vLLM's own, with an untrained model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.devices import role_environment
from cluster.ports import free_port
from jobs import judge, prepare
from jobs.run import Run
from r4t.catalog.endpoint import Client, Question
from r4t.catalog.prompts import OAR_SYSTEM, oar_prompt, read_queries
from r4t.config import Endpoint, parse_config
from r4t.errors import UserError
from r4t.policy import create_policy, train_tokenizer
from tests.support import wait_for
from tests.unit.judge_fixtures import make_shown_run

pytestmark = pytest.mark.slow
KEY = "key-of-the-test"
SETTINGS: dict[str, Any] = {"model": "tiny", "max_tokens": 24, "retries": 1, "timeout": 120.0}


class Silence:
    def advance(self) -> None:
        return


def make_model(folder: Path) -> None:
    config = parse_config(
        {
            "policy": {"vocab_size": 400, "hidden": 64, "layers": 2, "heads": 2, "max_length": 4096},
            "rl": {"max_tokens": 8},
        }
    )
    tokenizer = train_tokenizer(["beef stew", "apple pie", "green salad"] * 4, 400)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    create_policy(folder, tokenizer, config.policy, seed=0)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a vLLM server that wants a key."""
    folder = tmp_path_factory.mktemp("served")
    make_model(folder)
    port = free_port()
    own = role_environment("rollout", parse_config({"rollout": {"threads": 1}}))
    env = {**os.environ, **own, "VLLM_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    del env["VLLM_ENABLE_V1_MULTIPROCESSING"]  # the server needs its engine in a process of its own
    command = f"--model {folder} --served-model-name tiny --host 127.0.0.1 --port {port} --dtype float32"
    command += f" --max-model-len 4096 --max-num-seqs 8 --enforce-eager --kv-cache-memory-bytes {1 << 27}"
    command += " --max-num-batched-tokens 32768"  # a seeded request whose prompt is cut in chunks ends vLLM on CPU
    log = folder / "log.txt"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *command.split()],
            stdout=output, stderr=output, env=env, start_new_session=True,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}/v1"
        wait_for("vLLM's server", lambda: server.poll() is not None or answers(address), timeout=400, every=0.5)
        assert server.poll() is None, log.read_text()[-3000:]
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("R4T_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


def client(url: str, **settings: Any) -> Client:
    return Client(Endpoint(url=url, **{**SETTINGS, **settings}), lambda *_: nullcontext(Silence()))


def test_requests_are_accepted_nonsense_is_counted_and_the_cache_answers_the_second_time(url: str) -> None:
    questions = [Question(system=OAR_SYSTEM, user=oar_prompt("mood", 5, "food"), seed=str(i)) for i in range(4)]

    def parse(number: int, text: str) -> object:
        return read_queries(text) if number % 2 else text

    first = client(url)
    found = first.ask(questions, parse)
    assert [type(answer) for answer in found] == [str, type(None), str, type(None)]
    assert (first.counts.requests, first.counts.cached, first.counts.failed) == (6, 0, 2), "nonsense is asked twice"
    assert found[0] != found[2], "the seed reaches the sampler"
    second = client(url)
    assert second.ask(questions, parse) == found
    assert (second.counts.requests, second.counts.cached, second.counts.failed) == (0, 6, 2)


def test_the_same_seed_gives_the_same_answer_without_the_cache(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    question = [Question(user="apple pie", seed="3")]
    (first,) = client(url).ask(question, lambda _, text: text)
    monkeypatch.setenv("R4T_CACHE", str(tmp_path / "another"))
    assert client(url).ask(question, lambda _, text: text) == [first]


def test_a_missing_key_and_an_unknown_model_stop_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    question = [Question(user="apple pie")]
    with pytest.raises(UserError, match=r"404.*data.endpoint.model.*other"):
        client(url, model="other").ask(question, lambda _, text: text)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match=r"401.*OPENAI_API_KEY"):
        client(url).ask(question, lambda _, text: text)


def test_a_prompt_beyond_the_models_length_costs_its_row_alone(url: str) -> None:
    questions = [Question(user="apple pie"), Question(user="apple pie " * 4000)]
    asked = client(url, retries=0)
    long = asked.ask(questions, lambda _, text: text)
    assert isinstance(long[0], str)
    assert long[1] is None
    assert asked.counts.failed == 1


@pytest.fixture
def shown_run(tmp_path: Path) -> Run:
    return make_shown_run(tmp_path / "run")


def test_a_judge_that_writes_nonsense_is_refused_and_leaves_nothing(url: str, shown_run: Run) -> None:
    server = judge.endpoint(url=url, model="tiny", max_tokens=24, retries=1)
    with pytest.raises(UserError, match="got no usable answer, for example: not JSON"):
        judge.main(shown_run.config, shown_run, server, with_schema=False)
    assert not (shown_run.folder / "judge_llm").exists()
    with pytest.raises(UserError, match="did you mean 'mmr'"):
        judge.main(shown_run.config, shown_run, server, ["mmrr"])


@pytest.mark.parametrize("task", ["oar", "wscr"])
def test_prepare_refuses_a_model_that_writes_nonsense(url: str, task: str, tmp_path: Path) -> None:
    data = {"writer": "endpoint", "n_queries": 40, "endpoint": {**SETTINGS, "url": url}}
    if task == "wscr":
        data["augment"] = {"copies": 2, "pool": 12, "shortlist": 12, "size": 4}
    config = parse_config({"task": task, "data": data})
    run = Run(tmp_path / "run", config)
    with pytest.raises(UserError, match=rf"{url}, model tiny, got no usable answer, for example: no"):
        prepare.main(config, run)
    run.close()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if KEY in path.read_text(errors="replace")]
