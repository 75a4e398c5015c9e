"""Ray nodes that stand by themselves, as `ray start` leaves them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from ray.util.state import list_nodes
from support import ROOT, environment, wait_for

from cluster.ports import free_port

RAY = str(Path(sys.executable).with_name("ray"))
EAGER = {"RAY_worker_niceness": "0"}  # Ray's workers step back by 15, and starve beside the tests of another process
SERVE = str(Path(sys.executable).with_name("serve"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    dashboard: str
    """Where jobs are submitted."""
    gcs: str
    """What other nodes and drivers join."""
    agent: int
    """The port where the head's agent answers."""


@contextmanager
def ray_head(env: dict[str, str] | None = None) -> Iterator[str]:
    """Its dashboard's address, where jobs are submitted. Gone after the block. env: variables that it runs under."""
    with ray_cluster(env) as head:
        yield head.dashboard


@contextmanager
def ray_cluster(env: dict[str, str] | None = None, cpus: int | None = None) -> Iterator[Head]:
    """A head that `ray_worker` can join, with as many CPUs as there are unless told. Gone after the block."""
    temporary = tempfile.mkdtemp(prefix="r4t-", dir="/tmp")  # Ray's socket paths must be short
    port, gcs, agent = free_port(), free_port(), free_port()
    command = [
        "--head", f"--temp-dir={temporary}", f"--port={gcs}", f"--dashboard-port={port}",
        f"--ray-client-server-port={free_port()}", f"--num-cpus={psutil.cpu_count() if cpus is None else cpus}",
    ]  # fmt: skip
    try:
        with _node(command, agent, env) as process:

            def answers() -> bool:
                assert process.poll() is None, "ray start --head ended"
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", port)) == 0

            wait_for("the dashboard", answers, timeout=300)
            yield Head(dashboard=f"http://127.0.0.1:{port}", gcs=f"127.0.0.1:{gcs}", agent=agent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def serve_deploy(head: Head, file: Path) -> None:
    """What `serve deploy` makes of a file. Tried again as the operator does: a busy head may answer 500."""
    for _ in range(4):
        done = subprocess.run(
            [SERVE, "deploy", file, "--address", head.dashboard],
            capture_output=True, text=True, check=False, timeout=300, cwd=ROOT, env=environment(),
        )  # fmt: skip
        if done.returncode == 0:
            return
        time.sleep(2)
    raise AssertionError(done.stdout + done.stderr)


@contextmanager
def ray_worker(head: Head, *options: str, env: dict[str, str] | None = None) -> Iterator[str]:
    """A node that joined the head; its id. Gone after the block. env: variables that it runs under."""

    def alive() -> set[str]:
        found = list_nodes(head.dashboard, timeout=60)
        return {node.node_id for node in found if node.state == "ALIVE" and not node.is_head_node}

    before = alive()
    with ExitStack() as stack:
        started = [stack.enter_context(_node([f"--address={head.gcs}", *options], free_port(), env))]

        def joined() -> bool:
            if started[-1].poll() is not None:  # Ray gives a node 30 seconds to start, busy machine or not
                started.append(stack.enter_context(_node([f"--address={head.gcs}", *options], free_port(), env)))
            return bool(alive() - before)

        wait_for("the worker to join", joined, timeout=300, every=0.5)
        (node,) = alive() - before
        yield node


@contextmanager
def _node(options: list[str], agent: int, env: dict[str, str] | None) -> Iterator[subprocess.Popen[bytes]]:
    node = subprocess.Popen(
        [
            RAY, "start", "--block", "--disable-usage-stats", f"--dashboard-agent-listen-port={agent}", *options,
        ],
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment({"PATH": f"{Path(RAY).parent}:{environment()['PATH']}"} | EAGER | (env or {})),
    )  # fmt: skip
    try:
        yield node
    finally:
        processes = psutil.Process(node.pid).children(recursive=True) if node.poll() is None else []
        node.terminate()
        node.wait(timeout=60)
        _, alive = psutil.wait_procs(processes, timeout=20)
        for process in alive:
            process.kill()
