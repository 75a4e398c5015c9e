"""A pod of the RayService is ready when its raylet and its proxy say so."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import yaml
from support import ROOT

from cluster.serve_ready import AGENT, PROXY, problem

PATHS = ("/api/local_raylet_healthz", "/-/healthz")


@contextmanager
def answering(path: str, status: int) -> Iterator[int]:
    """The port of a server that knows one path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == path else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("raylet", "proxy", "expected"),
    [(200, 200, ""), (503, 200, "raylet: 503"), (200, 503, "proxy: 503")],
)
def test_both_must_be_well(raylet: int, proxy: int, expected: str) -> None:
    with answering(PATHS[0], raylet) as agent, answering(PATHS[1], proxy) as served:
        assert problem(agent, served) == expected


def test_nobody_there_is_a_problem_and_not_an_exception() -> None:
    with answering(PATHS[0], 200) as agent:
        with answering(PATHS[1], 200) as gone:
            pass
        assert problem(agent, gone).startswith("proxy: ")


def test_the_command_fails_where_no_ray_runs() -> None:
    """On the ports of a pod, which are those of the manifests."""
    done = subprocess.run(
        [sys.executable, "-m", "cluster.serve_ready"], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    assert (done.returncode, done.stderr.partition(":")[0]) in [(1, "raylet"), (1, "proxy")]
    service = yaml.safe_load((ROOT / "cluster/kuberay/components/service/rayservice.yaml").read_text())
    assert yaml.safe_load(service["spec"]["serveConfigV2"])["http_options"]["port"] == PROXY
    pod = yaml.safe_load((ROOT / "cluster/kuberay/base/raycluster.yaml").read_text())["spec"]["workerGroupSpecs"][0]
    probe = pod["template"]["spec"]["containers"][0]["livenessProbe"]
    assert (probe["httpGet"]["path"], probe["httpGet"]["port"]) == (PATHS[0], AGENT)
