"""`r4t serve --address`: what a driver asks for holds in the replicas of a cluster that was there before it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from ray_head import SERVE, Head, ray_cluster, serve_deploy
from serve_process import served
from support import assert_user_error, environment, r4t, wait_for

from cluster.ports import free_port
from cluster.serve import IMPORT_PATH
from r4t.client import Client
from r4t.retriever import R4TRetriever

pytestmark = pytest.mark.slow
LONG = pytest.mark.skipif("R4T_LONG" not in os.environ, reason="waits minutes for Ray Serve: R4T_LONG=1 runs it")
KEY = "serve-canary-41c7aa0e"
SHOWN = ("api/serve/applications/", "api/jobs/", "api/v0/actors?detail=1", "api/v0/workers?detail=1", "logical/actors")


@dataclass(frozen=True)
class Endpoint:
    url: str
    dashboard: str

    def ask(self, key: str | None = None) -> int:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.post(f"{self.url}/v1/retrieve", json={"query": "leek"}, headers=headers, timeout=60).status_code

    def running(self) -> int:
        """Replicas that answer, as Ray Serve says."""
        shown = httpx.get(f"{self.dashboard}/{SHOWN[0]}", timeout=60).json()
        replicas = shown["applications"]["r4t"]["deployments"]["r4t"]["replicas"]
        return sum(replica["state"] == "RUNNING" for replica in replicas)

    def process(self, actor: str) -> int | None:
        """Of the first living actor whose class is called so."""
        shown = httpx.get(f"{self.dashboard}/api/v0/actors?detail=1", timeout=60).json()["data"]["result"]["result"]
        alive = [one["pid"] for one in shown if actor in one["class_name"] and one["state"] == "ALIVE"]
        return alive[0] if alive else None


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_cluster() as started:
        yield started


@pytest.fixture(scope="module")
def endpoint(folder: Path, head: Head) -> Iterator[Endpoint]:
    """The key is in the environment of the driver alone."""
    overrides = ("replicas=1", "max_replicas=2", "target_ongoing=1", "replica_cpus=0.3")
    options = [part for one in overrides for part in ("--set", f"serve.{one}")]
    key = {"R4T_SERVE_KEY": KEY}
    with served(folder, "--address", head.gcs, "--port", free_port(), *options, env=key) as (url, _):
        yield Endpoint(url, head.dashboard)


def test_another_application_outlives_the_endpoint_and_is_left_alone(folder: Path, head: Head, tmp_path: Path) -> None:
    small = {"replicas": 1, "replica_cpus": 0.3}
    args = {"folders": [str(folder)], "serve": small}
    other = {"name": "other", "route_prefix": "/other", "import_path": IMPORT_PATH, "args": args}

    def statuses() -> dict[str, str]:
        shown = httpx.get(f"{head.dashboard}/{SHOWN[0]}", timeout=60).json()
        return {name: one["status"] for name, one in shown["applications"].items()}

    options = ("--address", head.gcs, "--set", "serve.replica_cpus=0.3")
    with served(folder, *options, "--port", free_port()):
        (tmp_path / "other.yaml").write_text(yaml.safe_dump({"applications": [other]}))
        serve_deploy(head, tmp_path / "other.yaml")
        wait_for("the other application", lambda: statuses() == {"r4t": "RUNNING", "other": "RUNNING"}, timeout=120)
    assert statuses() == {"other": "RUNNING"}
    refused = r4t("serve", folder, *options, "--port", free_port())
    assert_user_error(refused, "Ray Serve already runs on this cluster, with other: end it with `serve shutdown`")
    assert statuses() == {"other": "RUNNING"}
    subprocess.run([SERVE, "shutdown", "-y", "--address", head.dashboard], check=True, timeout=300, env=environment())


def test_the_drivers_key_holds_in_the_replicas(endpoint: Endpoint) -> None:
    assert endpoint.ask() == 401
    assert endpoint.ask("wrong") == 401
    assert endpoint.ask(hashlib.sha256(KEY.encode()).hexdigest()) == 401, "its digest is no key"
    assert endpoint.ask(KEY) == 200


@pytest.mark.parametrize("path", SHOWN)
def test_the_key_is_nowhere_in_what_ray_shows(endpoint: Endpoint, path: str) -> None:
    shown = httpx.get(f"{endpoint.dashboard}/{path}", timeout=60)
    assert shown.status_code == 200
    assert len(shown.text) > 10
    assert KEY not in shown.text


@pytest.mark.parametrize(
    ("actor", "fault"),
    [
        ("ServeReplica", signal.SIGKILL),
        ("ProxyActor", signal.SIGKILL),
        ("ProxyActor", signal.SIGSTOP),
        pytest.param("ServeReplica", signal.SIGSTOP, marks=LONG),
    ],
)
def test_no_answer_is_lost_with_a_process_that_dies_or_stands_still(
    folder: Path, endpoint: Endpoint, actor: str, fault: signal.Signals
) -> None:
    """Clients that ask again, as ours does, while the only replica or the only proxy is lost."""
    expected = [item.item_id for item in R4TRetriever.from_pretrained(folder).retrieve("leek soup", 5)[0].items]
    found: list[list[str]] = []
    stop = threading.Event()
    struck: int | None = None

    def ask() -> None:
        with Client(endpoint.url, key=KEY, retries=10) as client:
            while not stop.is_set():
                found.append([item.item_id for item in client.retrieve("leek soup", 5).sets[0].items])

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        try:
            wait_for("answers", lambda: len(found) > 20, timeout=120)
            struck = endpoint.process(actor)
            os.kill(struck, fault)
            wait_for("another process", lambda: endpoint.process(actor) not in (None, struck), timeout=180, every=0.5)
            before = len(found)
            wait_for("answers again", lambda: len(found) > before + 20, timeout=120)
        finally:
            stop.set()
            if struck is not None and fault == signal.SIGSTOP and psutil.pid_exists(struck):
                os.kill(struck, signal.SIGKILL)
        for one in asking:
            one.result()
    assert all(answer == expected for answer in found)


@LONG
def test_a_second_replica_comes_while_there_is_work_and_no_request_fails(endpoint: Endpoint) -> None:
    """Ray Serve adds one after half a minute of more than `serve.target_ongoing` requests in each."""
    assert endpoint.running() == 1
    statuses: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                statuses.append(endpoint.ask(KEY))
            except httpx.TransportError:
                statuses.append(0)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        wait_for("a second replica", lambda: endpoint.running() == 2, timeout=400, every=1.0)
        before = len(statuses)
        time.sleep(5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(statuses) > before, "both answer now"
    assert set(statuses) == {200}
