"""A job on a head without CPUs and two workers of one machine, with variables of its own, as KubeRay submits one."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from ray_head import RAY, ray_cluster, ray_worker
from support import ROOT, TINY, environment, r4t

pytestmark = pytest.mark.slow


def test_the_driver_has_the_jobs_variables_and_its_log_and_state_are_read_from_outside(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    variables = {"R4T_ATTEMPT": "r4t-x7k2p", "R4T_CACHE": os.environ["R4T_CACHE"]}

    def ray_job(*words: str | Path) -> str:
        done = subprocess.run(
            [RAY, "job", *map(str, words)],
            capture_output=True, text=True, timeout=600, check=False, cwd=ROOT, env=environment(),
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        return done.stdout

    with ray_cluster(cpus=0) as head, ray_worker(head, "--num-cpus=1"), ray_worker(head, "--num-cpus=1"):
        ray_job(
            "submit", f"--address={head.dashboard}", "--submission-id=tiny", "--working-dir=.",
            "--runtime-env-json", json.dumps({"env_vars": variables}),
            "--", "r4t", "run", TINY, "--run-dir", folder, "--stage", "prepare",
        )  # fmt: skip
        said = ray_job("logs", f"--address={head.dashboard}", "tiny")
    assert (folder / ".attempt").read_text() == variables["R4T_ATTEMPT"]
    assert "prepare" in said
    stages = json.loads(r4t("status", folder, "--json").stdout)["stages"]
    assert stages["prepare"]["state"] == "finished"
    assert stages["folm"]["state"] != "finished"
