"""The hook that pods run before they end, on nodes that `ray start` made, in the environment that KubeRay gives."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray._private.state import GlobalState
from ray._raylet import GcsClientOptions
from ray.job_submission import JobStatus, JobSubmissionClient
from ray.util.state import list_actors, list_nodes
from ray_head import Head, ray_cluster, ray_worker
from support import ROOT, environment, wait_for

from cluster.ports import free_port
from cluster.pre_stop import ADDRESS, INSTANCE, MARK

pytestmark = pytest.mark.slow
POD = "r4t-workers-worker-x7k2p"

HOLDER = """
import time, ray

@ray.remote(num_cpus=1)
class Holder:
    def there(self): return True

ray.init()
holder = Holder.remote()
assert ray.get(holder.there.remote())
print("seated", flush=True)
input()
ray.kill(holder)
print("killed", flush=True)
input()
"""

TRAINING = """
import sys
import time
from pathlib import Path

import ray

from jobs.stopping import stop_at_boundary

ray.init()
folder = Path(sys.argv[1])
with stop_at_boundary() as stop:
    (folder / "training").touch()
    while not stop.requested:
        time.sleep(0.05)
    time.sleep(float(sys.argv[2]))
    (folder / "checkpoint").touch()
"""


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_cluster(cpus=0) as found:
        yield found


def pre_stop(kind: str, seconds: float, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cluster.pre_stop", kind, "--seconds", str(seconds)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment(env),
    )  # fmt: skip


def draining(head: Head) -> dict[str, int]:
    """Ray's own word: deadlines, in milliseconds since 1970, by node."""
    state = GlobalState()
    state._initialize_global_state(GcsClientOptions.create(head.gcs, None, True, False))
    try:
        return dict(state.get_draining_nodes())
    finally:
        state.disconnect()


def alive(head: Head) -> set[str]:
    return {node.node_id for node in list_nodes(head.dashboard) if node.state == "ALIVE"}


@pytest.fixture
def holder(head: Head) -> Iterator[subprocess.Popen[str]]:
    """A driver that says when its actor has a seat, and kills it on a line of input."""
    driver = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment({ADDRESS: head.gcs}),
    )  # fmt: skip
    yield driver
    driver.kill()
    driver.wait()


def wait_for_word(driver: subprocess.Popen[str], word: str) -> None:
    """Until the driver says so; Ray says things between."""
    assert driver.stdout
    assert word in (line.strip() for line in driver.stdout), f"the driver ended before it said {word!r}"


def test_a_worker_drains_its_node_and_waits_for_its_actors(head: Head, holder: subprocess.Popen[str]) -> None:
    with ray_worker(head, "--num-cpus=1", env={INSTANCE: POD}) as node:
        wait_for_word(holder, "seated")
        assert {one.node_id for one in list_actors(head.dashboard, detail=True) if one.state == "ALIVE"} == {node}
        assert draining(head) == {}
        before = time.time()
        hook = pre_stop("worker", 100, **{ADDRESS: head.gcs, INSTANCE: POD})
        wait_for("the notice", lambda: node in draining(head), timeout=60, every=0.2)
        assert before + 99 < draining(head)[node] / 1000 < time.time() + 100, "it has the seconds that the pod has"
        time.sleep(2)
        assert hook.poll() is None, "the actor is still there"
        assert holder.stdin
        holder.stdin.write("\n")
        holder.stdin.flush()
        wait_for_word(holder, "killed")
        said, wrong = hook.communicate(timeout=60)
        assert (hook.returncode, wrong) == (0, "")
        assert said == f"node {node} is draining\n"
        assert node not in alive(head), "Ray ends a drained node that holds nothing"


def test_a_worker_that_stays_busy_does_not_wait_beyond_its_time(head: Head, holder: subprocess.Popen[str]) -> None:
    with ray_worker(head, "--num-cpus=1", env={INSTANCE: POD}) as node:
        wait_for_word(holder, "seated")
        started = time.time()
        hook = pre_stop("worker", 15, **{ADDRESS: head.gcs, INSTANCE: POD})
        hook.communicate(timeout=60)
        assert hook.returncode == 0
        assert 14 < time.time() - started < 25
        assert node in alive(head), "whose end is Kubernetes' business"


@pytest.mark.parametrize("instance", ["another-pod", ""])
def test_a_worker_drains_no_other_pods_node(head: Head, instance: str) -> None:
    with ray_worker(head, "--num-cpus=1", env={INSTANCE: POD}) as node:
        _, wrong = (hook := pre_stop("worker", 30, **{ADDRESS: head.gcs, INSTANCE: instance})).communicate(timeout=60)
        assert hook.returncode == 1
        assert wrong == f"no living node was started with {INSTANCE}={instance}\n"
        assert node not in draining(head)


@pytest.mark.parametrize("kind", ["worker", "head"])
def test_without_a_control_plane_it_ends_at_once(kind: str) -> None:
    started = time.time()
    _, wrong = (hook := pre_stop(kind, 100, **{ADDRESS: f"127.0.0.1:{free_port()}"})).communicate(timeout=60)
    assert hook.returncode == 1
    assert wrong.startswith(f"no control plane at {ADDRESS}=127.0.0.1:")
    assert time.time() - started < 30


def submit(head: Head, folder: Path, seconds: float) -> tuple[JobSubmissionClient, str]:
    script = folder / "training.py"
    script.write_text(TRAINING)
    jobs = JobSubmissionClient(head.dashboard)
    environment_of_it: dict[str, Any] = {"env_vars": {"PYTHONPATH": os.fspath(ROOT)}}
    command = f"{sys.executable} {script} {folder} {seconds}"
    job = jobs.submit_job(entrypoint=command, runtime_env=environment_of_it)
    wait_for("the training", (folder / "training").exists, timeout=120)
    return jobs, job


def test_the_heads_driver_writes_its_checkpoint_and_counts_as_failed(head: Head, tmp_path: Path) -> None:
    """Failed, for a stopped job is a complete one to KubeRay: no further attempt would be made."""
    jobs, job = submit(head, tmp_path, 3.0)
    hook = pre_stop("head", 100, **{ADDRESS: head.gcs, INSTANCE: "r4t-head"})
    said, wrong = hook.communicate(timeout=90)
    assert (hook.returncode, wrong) == (0, "")
    assert (tmp_path / "checkpoint").exists(), "it waits for the driver's end"
    assert said.count("is told to stop") == 1, "Ray's own drivers are left alone"
    wait_for("the job's end", lambda: jobs.get_job_status(job).is_terminal(), timeout=60, every=0.2)
    assert jobs.get_job_status(job) == JobStatus.FAILED
    assert jobs.get_job_info(job).driver_exit_code == 143
    assert JobSubmissionClient(head.dashboard).get_version(), "the dashboard lives"


def test_a_driver_that_was_told_already_is_not_told_twice(head: Head, tmp_path: Path) -> None:
    """The second SIGTERM would end it without its checkpoint: KubeRay stops the job of a RayJob that is deleted."""
    jobs, job = submit(head, tmp_path, 8.0)
    pid = int(jobs.get_job_info(job).driver_info.pid)
    driver = psutil.Process(pid)
    driver.terminate()
    wait_for("the mark", lambda: psutil.Process(pid).name() == MARK, timeout=10)
    hook = pre_stop("head", 100, **{ADDRESS: head.gcs, INSTANCE: "r4t-head"})
    said, _ = hook.communicate(timeout=90)
    assert (hook.returncode, said) == (0, "")
    assert (tmp_path / "checkpoint").exists()


def test_a_head_without_drivers_ends_at_once(head: Head) -> None:
    started = time.time()
    hook = pre_stop("head", 100, **{ADDRESS: head.gcs, INSTANCE: "r4t-head"})
    assert hook.communicate(timeout=60) == ("", "")
    assert hook.returncode == 0
    assert time.time() - started < 30
