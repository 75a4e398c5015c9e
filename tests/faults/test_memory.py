"""A node that runs out of memory: Ray kills an actor, and that actor counts as lost."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest
from support import ROOT

pytestmark = pytest.mark.slow

GROWS = """
import time
import numpy as np
import ray
from cluster.launch import ActorsLost, gather
from r4t.config import parse_config

class Worker:
    def grow(self, mebibytes):
        held = []
        for _ in range(mebibytes // 128):
            held.append(np.ones(1 << 24))
            time.sleep(0.02)
        time.sleep(60)

ray.init(num_cpus=1, include_dashboard=False)
call = ray.remote(Worker).options(num_cpus=0).remote().grow.remote({mebibytes})
try:
    gather([call], parse_config({{"cluster": {{"call_timeout": 60}}}}), "rollout workers")
except ActorsLost as lost:
    print("lost:", lost)
"""


TRIES = 3  # the bound counts everybody's memory, and what else runs may take or free some just then


def test_an_actor_that_was_killed_for_memory_is_lost_and_named() -> None:
    said = [run_out_of_memory()]
    while "(OutOfMemoryError)" not in said[-1] and len(said) < TRIES:
        said.append(run_out_of_memory())
    assert "lost: rollout workers [0] of 1 died (OutOfMemoryError)" in said[-1], "\n".join(said)


def run_out_of_memory() -> str:
    """What a driver says whose actor takes more than the machine may have in use."""
    memory = psutil.virtual_memory()
    used = 1 - memory.available / memory.total
    room = 0.04  # of the machine, for an actor that wants three times as much
    if used + room > 0.9:
        pytest.skip("the machine has too little memory left to run out of it on purpose")
    settings = {"RAY_memory_usage_threshold": f"{used + room:.3f}", "RAY_memory_monitor_refresh_ms": "100"}
    done = subprocess.run(
        [sys.executable, "-c", GROWS.format(mebibytes=int(3 * room * memory.total / 2**20))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | settings,
        timeout=300,
    )
    return done.stdout + done.stderr
