"""`r4t serve` as a user runs it: without torch or Ray where --lite says so, and on Ray Serve with replicas."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from serve_process import served
from support import (
    R4T,
    ROOT,
    assert_all_end,
    assert_user_error,
    descendants,
    environment,
    flip,
    r4t,
    raylets,
    wait_for,
)
from taught_policy import teach

from benchmarks.serve_load import offered
from benchmarks.serve_reload import changing
from benchmarks.served import memory
from benchmarks.versions import answers_of, variants
from cluster.ports import free_port
from jobs.export import export
from r4t.client import Client
from r4t.errors import UserError
from r4t.retriever import R4TRetriever
from r4t.serving.lineage import lineage_of, policy_lineage, with_writer

pytestmark = pytest.mark.service

RATE = 5.0  # requests a second
SOAK = float(os.environ.get("R4T_SOAK", "30"))  # seconds
PROBE = """
import json, os, signal, sys, threading, time, urllib.request
from jobs.cli import app

HEAVY = {"torch", "ray", "transformers", "vllm"}
body = json.dumps({"query": "leek", "k": 3, "map": True, "method": "mmr"}).encode()
url = f"http://127.0.0.1:{sys.argv[1]}/v1/retrieve"

def ask():
    for _ in range(400):
        time.sleep(0.05)
        try:
            asked = urllib.request.Request(url, body, {"content-type": "application/json"})
            print(urllib.request.urlopen(asked).status, *sorted(HEAVY & set(sys.modules)))
            break
        except OSError:
            pass
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=ask).start()
app(["serve", sys.argv[2], "--lite", "--port", sys.argv[1]], standalone_mode=False)
"""
DEPLOY = """
import sys
from cluster.serve import run
from cluster.serve_worker import HOOK, prepare
from cluster.session import start

prepare()
start("local", HOOK)
run({"folders": [sys.argv[1]], "serve": {}}, "127.0.0.1", int(sys.argv[2]), lambda: print("ready"))
"""


def test_lite_loads_neither_torch_nor_ray(folder: Path) -> None:
    command = [sys.executable, "-c", PROBE, str(free_port()), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment(), timeout=300)
    assert "\n200\n" in done.stdout, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("r4t serve: stopped")


def test_lite_answers_the_client_as_the_retriever_does_and_stops_on_sigterm(folder: Path) -> None:
    expected = R4TRetriever.from_pretrained(folder, engine="onnx", threads=1).retrieve("leek soup", 7, seed=4)[0]
    with served(folder, "--lite", "--port", "0") as (url, process), Client(url) as client:
        assert client.ready()
        found = client.retrieve("leek soup", 7, seed=4)
        assert [item.item_id for item in found.sets[0].items] == [item.item_id for item in expected.items]
        assert client.methods().catalog.items == 24
    assert process.returncode == 0


def test_lite_is_not_ready_from_sigterm_on_and_answers_what_it_admitted(folder: Path) -> None:
    body = {"queries": ["leek soup"] * 1024, "k": 20}
    limits = ("--set", "serve.max_queries=1024", "--set", "serve.max_waiting=20000")
    with (
        served(folder, "--lite", "--port", "0", *limits) as (url, process),
        ThreadPoolExecutor(12) as pool,
    ):
        asked = [pool.submit(httpx.post, f"{url}/v1/retrieve", json=body, timeout=120) for _ in range(12)]
        wait_for("queries that wait", lambda: _waiting(url) > 3000, timeout=60)
        process.send_signal(signal.SIGTERM)
        wait_for("it to say so", lambda: httpx.get(f"{url}/readyz", timeout=20).status_code == 503, timeout=20)
        statuses = [one.result().status_code for one in asked]
        assert set(statuses) <= {200, 503}, "503 where a request came after the signal"
        assert statuses.count(200) > 2
    assert process.returncode == 0


def _waiting(url: str) -> float:
    found = re.search(r"^r4t_waiting_queries (\S+)$", httpx.get(f"{url}/metrics", timeout=60).text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_a_run_is_exported_once_and_again_when_it_has_changed(folder: Path, tmp_path: Path) -> None:
    from jobs.serving_folder import served_folders

    run = Path(shutil.copytree(folder.parent / "run", tmp_path / "run"))
    (made,) = served_folders(run, "onnx")
    first = (made / "manifest.json").read_bytes()
    assert served_folders(run, "onnx") == [made]
    assert (made / "manifest.json").read_bytes() == first, "not exported again"
    manifest = run / "retriever" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"stage": "retriever"', '"stage":  "retriever"'))
    served_folders(run, "onnx")
    assert (made / "manifest.json").read_bytes() != first


def test_what_cannot_be_served_is_one_message(folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    export(folder.parent / "run", bare)
    assert_user_error(r4t("serve", bare, "--lite"), f"r4t export RUN {bare} --onnx")
    assert_user_error(r4t("serve", tmp_path, "--lite"), "neither a run nor an exported retriever")
    assert_user_error(r4t("serve", folder, "--lite", "--folm"), "holds no language model for r4t_folm: give the run")
    assert_user_error(r4t("serve", folder, "--lite", "--set", "rl.steps=3"), "only keys of section 'serve'")
    assert_user_error(r4t("serve", folder, "--lite", "--set", "serve.max_q=3"), "did you mean 'max_k'")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert_user_error(r4t("serve", folder, "--lite", "--port", port), "give another --port")


@pytest.mark.slow
def test_ray_serve_answers_reloads_sheds_and_drains(folder: Path, tmp_path: Path) -> None:
    """One instance for all of it: starting Ray Serve takes the longest."""
    run = Path(shutil.copytree(folder.parent / "run", tmp_path / "run"))
    teach(run, ["leek soup", "mint"], ["raw leek", "baked rice", "dried mint"])
    expected = R4TRetriever.from_pretrained(folder).retrieve("leek soup", 7, seed=4)[0]
    overrides = ("serve.replicas=2", "serve.replica_cpus=0.5", "serve.watch=0.2", "serve.max_waiting=64")
    options = [part for one in overrides for part in ("--set", one)]
    asked: list[tuple[float, float, int]] = []
    with served(run, "--folm", "--port", str(free_port()), *options) as (url, process):
        with Client(url) as client, _soaked(url, process.pid) as rested:
            found = client.retrieve("leek soup", 7, seed=4)
            assert [item.item_id for item in found.sets[0].items] == [item.item_id for item in expected.items]
            written = client.retrieve("leek soup", 4, method="r4t_folm")
            assert written.sets[0].subqueries == ["raw leek", "baked rice", "dried mint", "raw leek", "baked rice"]
            assert [item.item_id for item in written.sets[0].items[:3]] == ["raw leek", "baked rice", "dried mint"]
            assert [one.name for one in client.methods().methods][2] == "r4t_folm"
            _reload_without_a_failure(url, run, run / "serving" / "retriever", tmp_path)
            _settle(client, found.lineage)
            assert client.retrieve("leek soup", 4, method="r4t_folm").sets == written.sets
            refused = httpx.post(f"{url}/v1/retrieve", json={"query": "leek", "k": "7"})
            assert (refused.status_code, refused.json()["error"]["field"]) == (422, "k")
            rested()
        statuses = _flood(url)
        assert set(statuses) == {200, 429}, statuses
        assert httpx.post(f"{url}/v1/retrieve", json={"query": "leek"}, timeout=60).status_code == 200, "it recovered"
        threads = [threading.Thread(target=_ask_until_refused, args=(url, asked)) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(2.0)
        told = time.monotonic()
    for thread in threads:
        thread.join()
    assert process.returncode == 0
    under_way = [status for start, ended, status in asked if start < told < ended]
    assert set(under_way) == {200}, "what was admitted is answered before it stops"


@pytest.mark.slow
def test_a_replica_without_a_place_is_named_and_sigterm_ends_the_wait(folder: Path) -> None:
    options = ("--port", str(free_port()), "--set", "serve.replica_cpus=512")
    command = [R4T, "serve", folder, *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stderr is not None
        try:
            while (line := process.stderr.readline()) and "not up yet" not in line:
                continue
        finally:
            process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=120)
    assert "a replica needs 512 CPUs (serve.replica_cpus), " in line
    assert process.returncode == 0
    assert out.rstrip().endswith("r4t serve: stopped"), out


def test_a_language_model_that_is_damaged_is_refused_before_anything_starts(folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(folder.parent / "run", tmp_path / "run"))
    teach(run, ["leek soup"], ["raw leek"])
    weights = run / "folm" / "policy" / "model.safetensors"
    flip(weights, weights.stat().st_size // 2)
    for way in ((), ("--lite",)):
        done = r4t("serve", run, "--folm", "--port", str(free_port()), *way)
        assert_user_error(done, "the language model is not as it was written", str(weights), "without --folm")


@pytest.mark.slow
def test_a_replica_that_cannot_start_ends_the_deployment_with_its_reason(tmp_path: Path) -> None:
    """As where a folder is on the driver's node alone."""
    done = subprocess.run(
        [sys.executable, "-c", DEPLOY, tmp_path, str(free_port())],
        capture_output=True, text=True, timeout=300, env=environment({"RAY_worker_niceness": "0"}), cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, "ready" in done.stdout) == (1, False), done.stderr
    last = done.stderr.strip().splitlines()[-1]
    said = f"UserError: the endpoint did not start: no exported retriever in {tmp_path}: write one with `r4t export"
    assert said in last, done.stderr
    logs = re.search(r"the replicas' own output is in (\S+)\)", last)
    assert logs
    assert list(Path(logs[1]).glob("replica_*")), "where it is said to be"


@pytest.mark.slow
def test_an_endpoint_whose_ray_node_ends_says_so(folder: Path) -> None:
    options = ("--port", str(free_port()), "--set", "serve.replica_cpus=0.5")
    with served(folder, *options, stderr=subprocess.PIPE) as (_, process):
        children = descendants(process.pid)
        raylets(process.pid)[0].kill()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 2, said
    assert said.count("error: the Ray node that this command runs on has ended") == 1, said
    assert_all_end(children)


@contextmanager
def _soaked(url: str, pid: int) -> Iterator[Callable[[], None]]:
    """The rated load for SOAK seconds beside what the block does, none of it failing. Yields what to call once nothing
    more is to be loaded: the memory from then on is flat."""
    before: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        soak = pool.submit(lambda: asyncio.run(offered(url, RATE, SOAK)))
        yield lambda: before.append(memory(pid, ray=True))
        result = soak.result()
    assert list(result["statuses"]) == ["200"], result
    assert result["statuses"]["200"] > 0.7 * RATE * SOAK
    assert memory(pid, ray=True) < 1.1 * before[0]


def _reload_without_a_failure(url: str, run: Path, live: Path, parent: Path) -> None:
    """Versions that differ, in both replicas, then the one that was there before; nothing is asked twice."""
    texts = ["leek", "rice soup", "mint"]
    folders = [Path(shutil.copytree(live, parent / "first")), *variants(live, parent, 2)]
    policy = policy_lineage(run)
    known = {with_writer(one, policy): sets for one, sets in answers_of(folders, texts, 10, "torch").items()}
    assert len({str(sets) for sets in known.values()}) == 3, "no two versions answer alike"

    def name(folder: Path) -> str:
        return with_writer(lineage_of([folder]), policy)

    turns = [*folders[1:], folders[0]]
    found = asyncio.run(changing(url, live, turns, known, texts, clients=2, name=name))
    assert set(found.statuses) == {"200"}, found.statuses
    assert found.wrong == []
    assert set(found.versions) == set(known), "every version answered, and no other"


def _settle(client: Client, lineage: str) -> None:
    """Waits until both replicas answer with one version: each looks for itself."""
    alike, deadline = 0, time.monotonic() + 60
    while alike < 20:
        assert time.monotonic() < deadline
        alike = alike + 1 if client.retrieve("leek").lineage == lineage else 0


def _ask_until_refused(url: str, asked: list[tuple[float, float, int]]) -> None:
    """Adds when each request began and ended, and its status; 0 where the connection failed."""
    body = {"queries": ["leek soup"] * 16, "k": 20, "map": True}
    status = 200
    with httpx.Client(timeout=60) as client:
        while status == 200:
            start = time.monotonic()
            try:
                status = client.post(f"{url}/v1/retrieve", json=body).status_code
            except httpx.TransportError:
                status = 0
            asked.append((start, time.monotonic(), status))


def _flood(url: str) -> list[int]:
    """What 40 requests of 16 queries each get at once, where 64 queries may wait in each of two replicas."""
    statuses: list[int] = []

    def ask() -> None:
        body = {"queries": ["leek soup"] * 16, "k": 20}
        statuses.append(httpx.post(f"{url}/v1/retrieve", json=body, timeout=120).status_code)

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def test_the_settings_of_a_run_are_read(folder: Path) -> None:
    from jobs.serving_folder import serve_settings

    assert serve_settings(folder, ["serve.max_k=7"]).serve.max_k == 7
    with pytest.raises(UserError, match="max_waiting"):
        serve_settings(folder, ["serve.max_waiting=1"])
