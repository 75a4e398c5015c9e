"""A Ray head node that stands by itself, as `ray start --head` leaves it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from support import ROOT, environment, wait_for

RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def ray_head(env: dict[str, str] | None = None, port: int | None = None) -> Iterator[str]:
    """Its dashboard's address, where jobs are submitted. Gone after the block. env: variables that it runs under;
    port: where it is joined."""
    temporary = tempfile.mkdtemp(prefix="r4t-", dir="/tmp")  # Ray's socket paths must be short
    dashboard = free_port()
    head = subprocess.Popen(
        [
            RAY, "start", "--head", "--block", "--disable-usage-stats", f"--temp-dir={temporary}",
            f"--port={port or free_port()}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}",
            f"--dashboard-agent-listen-port={free_port()}", f"--num-cpus={psutil.cpu_count()}",
        ],
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment({"PATH": f"{Path(RAY).parent}:{environment()['PATH']}"} | (env or {})),
    )  # fmt: skip

    def answers() -> bool:
        assert head.poll() is None, "ray start --head ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", dashboard)) == 0

    try:
        wait_for("the dashboard", answers, timeout=300)
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        processes = psutil.Process(head.pid).children(recursive=True) if head.poll() is None else []
        head.terminate()
        head.wait(timeout=60)
        _, alive = psutil.wait_procs(processes, timeout=20)
        for process in alive:
            process.kill()
        shutil.rmtree(temporary, ignore_errors=True)
