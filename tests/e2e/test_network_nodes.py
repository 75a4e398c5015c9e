"""Runs on Ray nodes in network namespaces, each with its own address; refused where some cannot take part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from network_nodes import Network
from support import R4T, ROOT, TINY, assert_user_error, environment

pytestmark = pytest.mark.slow


def test_nodes_that_cannot_take_part_are_named_before_anything_starts(network: Network, tmp_path: Path) -> None:
    """A node whose /tmp is its own and small: it has no room, and does not see the run directory of the others."""
    plain = network.start("--num-cpus=1")
    network.wait_for(plain)
    strange = network.start("--num-cpus=1", tmpfs="300m")
    network.wait_for(plain, strange)
    done = network.run(network.head, R4T, "run", TINY, "--run-dir", tmp_path / "run", "--address", network.gcs)
    network.kill(plain)
    network.kill(strange)
    assert_user_error(done, f"node {strange.address} does not see {tmp_path / 'run'}: mount the same storage there")
    assert f"node {strange.address} has 0." in done.stderr, done.stderr
    assert plain.address not in done.stderr
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_cluster_of_another_version_of_ray_is_told_apart_from_none(network: Network) -> None:
    code = f"import ray; ray.__version__ = '2.0.0'; from cluster.session import start; start({network.gcs!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, env=environment()
    )
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("r4t.errors.UserError")]
    assert f"the cluster at '{network.gcs}' runs other versions than this process" in message
    assert "Ray: 2.0.0" in message
