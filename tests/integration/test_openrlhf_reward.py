"""OpenRLHF's own executor drives R4T's reward, as a file and over HTTP, with real concurrency.

Only the engine is a stand-in: it writes answers made beforehand.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import openrlhf_wheel
import pytest
from support import R4T, ROOT, assert_user_error, environment, r4t

from jobs.run import save_config
from r4t.fanout import build_prompt, format_answer
from r4t.interop import openrlhf_patch, openrlhf_reward
from r4t.interop.reward import open_reward
from r4t.policy import train_tokenizer
from tests.integration.small_run import NAMES, QUERIES, make_run, settings

pytestmark = pytest.mark.service

FILE = ROOT / "r4t" / "interop" / "openrlhf_reward.py"
SAMPLES = 64
KEY = "a-key"
PARAMS = SimpleNamespace(max_tokens=64, logprobs=None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    make_run(folder, settings()).close()
    save_config(folder, settings())
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(
        [*NAMES, *QUERIES], 384, fold=True
    )  # its decoded prompts are not letter by letter the prompts


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[str]:
    command = [R4T, "serve-reward", str(run), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment({"R4T_REWARD_KEY": KEY})
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("reward server: http://127.0.0.1:"), line
    yield line.split()[-1]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert "stopped; {'calls': " in process.stdout.read()


class Engine:
    """Writes one answer after the other."""

    def __init__(self, tokenizer: Any, answers: list[str]) -> None:
        self.tokenizer, self.answers = tokenizer, answers

    async def generate(self, _: list[int], params: Any, multi_modal_data: Any = None) -> Any:
        assert multi_modal_data is None
        ids = self.tokenizer.encode(self.answers.pop(0), add_special_tokens=False)
        ids = [*ids[: params.max_tokens], self.tokenizer.eos_token_id]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids, finish_reason="stop", logprobs=None)])


def asked(count: int) -> tuple[list[int], list[str], list[str]]:
    """Rows, prompts and answers: some cannot be read."""
    rows = [i % len(QUERIES) for i in range(count)]
    prompts = [build_prompt(QUERIES[row], style="compact", task="oar", domain="recipes", k=4) for row in rows]
    answers = [format_answer([NAMES[(i * 7 + j * 3) % len(NAMES)] for j in range(4)]) for i in range(count)]
    return rows, prompts, ["no list" if i % 10 == 9 else answer for i, answer in enumerate(answers)]


def drive(endpoint: str, tokenizer: Any, labels: list[Any], prompts: list[str], answers: list[str]) -> list[Any]:
    agents = openrlhf_wheel.agents()

    async def sample() -> list[Any]:
        executor = agents.SingleTurnAgentExecutor(endpoint)
        engine = Engine(tokenizer, list(answers))
        calls = [
            executor.execute(prompt, label, PARAMS, 256, tokenizer, engine)
            for prompt, label in zip(prompts, labels, strict=True)
        ]
        return await asyncio.gather(*calls)

    return asyncio.run(sample())


def assert_rewards(run: Path, outputs: list[Any], rows: list[int], answers: list[str]) -> None:
    expected = open_reward(run).scorer.score(rows, answers)
    assert [float(_one(output["reward"])) for output in outputs] == pytest.approx(expected.rewards.tolist(), abs=1e-5)
    assert [float(_one(output["scores"])) for output in outputs] == pytest.approx(expected.rewards.tolist(), abs=1e-5)
    valid = [float(_one(output["extra_logs"]["r4t/valid"])) for output in outputs]
    assert valid == [float(fanout.valid) for fanout in expected.fanouts]
    found = [float(_one(output["extra_logs"]["r4t/diversity"])) for output in outputs]
    assert found == pytest.approx([0.0 if v != v else v for v in expected.terms["diversity"].tolist()], abs=1e-5)


def _one(value: Any) -> Any:
    (only,) = value
    return only


def test_the_reward_file_scores_concurrent_samples_together(
    run: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(openrlhf_reward.VARIABLE, str(run))
    rows, prompts, answers = asked(SAMPLES)
    outputs = drive(str(FILE), tokenizer, [f"q{row}" for row in rows], prompts, answers)
    assert_rewards(run, outputs, rows, answers)


def test_more_calls_wait_at_once_than_asyncio_has_threads(
    run: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(openrlhf_reward.VARIABLE, str(run))
    agents = openrlhf_wheel.agents()
    rows, prompts, answers = asked(SAMPLES)

    async def sample() -> dict[str, Any]:
        executor = agents.SingleTurnAgentExecutor(str(FILE))
        loaded = executor.reward_func.__globals__["service"]()
        loaded._batcher._wait = 1.0  # seconds, so that a slow machine too gathers them all
        loaded._batcher._most = SAMPLES
        engine = Engine(tokenizer, list(answers))
        calls = zip(prompts, rows, strict=True)
        await asyncio.gather(*(executor.execute(p, f"q{r}", PARAMS, 256, tokenizer, engine) for p, r in calls))
        stats: dict[str, Any] = loaded.stats()
        return stats

    assert asyncio.run(sample()) == {
        "calls": SAMPLES, "entries": SAMPLES, "batches": 1, "largest": SAMPLES, "errors": {},
    }  # fmt: skip
    assert (os.cpu_count() or 1) + 4 < SAMPLES


def test_a_reward_file_without_its_run_fails_as_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = openrlhf_wheel.agents()
    monkeypatch.delenv(openrlhf_reward.VARIABLE, raising=False)
    with pytest.raises(Exception, match="R4T_REWARD is not set"):
        agents.SingleTurnAgentExecutor(str(FILE))


def test_the_http_server_scores_concurrent_samples_together(run: Path, server: str, tokenizer: Any) -> None:
    rows, prompts, answers = asked(SAMPLES)
    url = server.replace("http://", f"http://r4t:{KEY}@")
    outputs = drive(url, tokenizer, [f"q{row}" for row in rows], prompts, answers)
    assert_rewards(run, outputs, rows, answers)
    stats = httpx.get(server.replace("get_reward", "stats"), headers={"Authorization": f"Bearer {KEY}"}).json()
    assert stats["entries"] == SAMPLES
    assert stats["batches"] < SAMPLES / 2


def test_a_label_that_is_missing_is_counted_and_told(
    run: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(openrlhf_reward.VARIABLE, str(run))
    _, prompts, answers = asked(2)
    outputs = drive(str(FILE), tokenizer, ["q0", ""], prompts, answers)
    assert outputs[0]["reward"] is not None
    assert outputs[1]["reward"] is None, "OpenRLHF catches what a reward raises; openrlhf_patch stops the run there"
    assert "came without a label" in caplog.text


def test_with_the_patch_a_failed_reward_stops_the_run(
    run: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = openrlhf_wheel.agents()
    monkeypatch.setenv(openrlhf_reward.VARIABLE, str(run))
    monkeypatch.setattr(agents.SingleTurnAgentExecutor, "execute", agents.SingleTurnAgentExecutor.execute)
    openrlhf_patch.raise_without_reward(agents)
    openrlhf_patch.raise_without_reward(agents)
    _, prompts, answers = asked(2)
    assert len(drive(str(FILE), tokenizer, ["q0", "q1"], prompts, list(answers))) == 2
    with pytest.raises(RuntimeError, match=r"no reward came back from .*openrlhf_reward\.py"):
        drive(str(FILE), tokenizer, ["q0", None], prompts, answers)


def test_serve_reward_refuses_what_it_cannot_serve(tmp_path: Path, server: str) -> None:
    assert_user_error(r4t("serve-reward", tmp_path), "is no run directory")
    port = server.split(":")[2].split("/")[0]
    assert_user_error(r4t("serve-reward", tmp_path, "--port", port), f"cannot listen on 127.0.0.1:{port}")
