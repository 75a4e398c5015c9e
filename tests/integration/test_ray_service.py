"""The RayService's own `serveConfigV2`, deployed as the operator deploys it, answers as the retriever does."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import yaml
from ray_head import ray_cluster, serve_deploy
from serving_fixtures import exported
from support import ROOT, wait_for

from cluster.ports import free_port
from cluster.serve_proxy import SECONDS
from cluster.serve_ready import problem
from cluster.serve_worker import HOOK, NODE_VARIABLE
from r4t.client import Client
from r4t.retriever import R4TRetriever

pytestmark = pytest.mark.slow
MANIFEST = ROOT / "cluster" / "kuberay" / "components" / "service" / "rayservice.yaml"
OVERLAY = ROOT / "cluster" / "kuberay" / "overlays" / "service" / "kustomization.yaml"


def test_the_manifests_application_answers(tmp_path: Path) -> None:
    """Changed are only what differs from a pod: the folder on the storage, the port and how many replicas fit."""
    folder = exported(tmp_path)
    expected = R4TRetriever.from_pretrained(folder).retrieve("leek soup", 7, seed=4)[0]
    config = yaml.safe_load(yaml.safe_load(MANIFEST.read_text())["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    assert application["args"]["folders"] == ["/runs/served"]
    application["args"] |= {"folders": [str(folder)], "serve": {"replicas": 1, "replica_cpus": 0.5}}
    config["http_options"] |= {"host": "127.0.0.1", "port": free_port()}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
    assert f"{{name: {NODE_VARIABLE}, value: {HOOK}}}" in OVERLAY.read_text()
    port = config["http_options"]["port"]
    with ray_cluster({NODE_VARIABLE: HOOK}) as head:
        wait_for("the raylet", lambda: problem(head.agent, port).startswith("proxy: "), timeout=120, every=1.0)
        serve_deploy(head, tmp_path / "serve.yaml")
        with Client(f"http://127.0.0.1:{port}") as client:
            wait_for("the endpoint", client.ready, timeout=300, every=1.0)
            found = client.retrieve("leek soup", 7, seed=4)
        assert problem(head.agent, port) == "", "what the readiness probe asks"
        assert problem(free_port(), port).startswith("raylet: ")
        with socket.create_connection(("127.0.0.1", port), SECONDS + 20) as half:
            half.sendall(b"POST /v1/retr")
            assert half.recv(100) == b"", "the proxy ends a connection whose request never arrives"
    assert [item.item_id for item in found.sets[0].items] == [item.item_id for item in expected.items]
