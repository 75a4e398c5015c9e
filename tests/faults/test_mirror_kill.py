"""A run whose machine is gone: killed, its directory lost, the same command goes on from the store."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from object_store import BUCKET, s3_server, variables
from support import R4T, ROOT, TINY, assert_all_end, descendants, environment, r4t, wait_for

from r4t.lineage import read_manifest
from r4t.storage.push import read_index
from r4t.storage.store import Store
from r4t.tracking import read_metrics
from r4t.verify import verify

pytestmark = pytest.mark.slow

STEPS = 24
CHEAP = ["--set", "rollout.engine=hf", "--set", "learner.ranks=1", "--set", f"rl.steps={STEPS}"]


def _command(folder: Path, stage: str) -> list[str | Path]:
    mirror = ["--set", f"cluster.mirror=s3://{BUCKET}/runs", "--set", "cluster.mirror_every=1"]
    return ["run", TINY, "--stage", stage, "--run-dir", folder, *CHEAP, *mirror]


def _end_when(condition: Callable[[], bool], folder: Path, env: dict[str, str], how: signal.Signals) -> int:
    """Starts stage folm, waits for the moment, and ends the driver. Returns its exit code."""
    with folder.with_suffix(".log").open("a") as output:
        driver = subprocess.Popen(
            [R4T, *map(str, _command(folder, "folm"))],
            stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=ROOT, env=environment(env),
        )  # fmt: skip
    try:
        wait_for("the moment", lambda: condition() or driver.poll() is not None, timeout=300)
        assert driver.poll() is None, folder.with_suffix(".log").read_text()[-3000:]
        children = descendants(driver.pid)
        driver.send_signal(how)
        if how == signal.SIGTERM:
            driver.wait(timeout=120)
    finally:
        driver.kill()
        driver.wait()
    assert_all_end(children)
    return driver.returncode


def _steps(folder: Path, since: float = 0) -> list[int]:
    """Those done after a time: of the steps after its last checkpoint the store may hold the numbers too."""
    lines = read_metrics(folder / "metrics.jsonl")
    return [line["step"] for line in lines if line["stage"] == "folm" and line["time"] > since]


def _result(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder / "folm")
    assert manifest is not None
    return manifest["files"]


def test_a_run_goes_on_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(tmp_path / "s3.log") as port:
        env = variables(port)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        folder, store = tmp_path / "run", Store(f"s3://{BUCKET}/runs/run")
        assert r4t(*_command(folder, "prepare"), env=env).returncode == 0
        shutil.copytree(folder, tmp_path / "undisturbed")

        def stored() -> set[str]:
            index = read_index(store)
            return set() if index is None else set(index.files)

        def step() -> int:
            """The newest checkpoint's that the store has."""
            found = re.findall(r"folm/checkpoints/step-(\d+)/state", " ".join(stored()))
            return max(map(int, found), default=0)

        _end_when(lambda: step() > 0, folder, env, signal.SIGKILL)
        shutil.rmtree(folder)
        killed_at = step()
        begun = time.time()
        assert _end_when(lambda: _steps(folder, begun)[-1:] > [killed_at], folder, env, signal.SIGTERM) == 143
        assert f"resuming at step {killed_at}" in (folder / "log.txt").read_text()
        shutil.rmtree(folder)
        assert killed_at < step() < STEPS, "it was stopped before its end, and the store has what it did"
        done = r4t(*_command(folder, "folm"), env=env)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert "resuming at step" in (folder / "log.txt").read_text()
        assert verify(folder) == []
        assert stored() >= {"seal.json", "folm/manifest.json"}
        other = r4t("run", TINY, "--stage", "folm", "--run-dir", tmp_path / "undisturbed", *CHEAP)
        assert other.returncode == 0, other.stderr
        assert _result(folder) == _result(tmp_path / "undisturbed")
        assert _steps(folder) == list(range(1, STEPS + 1))
