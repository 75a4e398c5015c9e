"""The driver is killed in every stage of a run; each time the same command goes on where it was."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import R4T, ROOT, TINY, assert_all_end, descendants, environment, r4t, wait_for

from r4t.lineage import is_finished
from r4t.tracking import read_metrics
from r4t.verify import verify

pytestmark = pytest.mark.slow

Condition = Callable[[Path], bool]
COMMAND = ("run", TINY, "--set", "learner.ranks=1")  # several ranks are killed in test_folm.py
SHARD = "shard-?????.parquet"  # the last of its files to be written
KILLS: dict[str, Condition] = {
    "prepare": lambda run: (run / "config.yaml").is_file(),
    "folm": lambda run: any((run / "folm" / "checkpoints").glob("step-*/state.json")),
    "sets": lambda run: any((run / "sets").glob(SHARD)),
    "retriever": lambda run: any((run / "retriever" / "checkpoints").glob("step-*")),
    "evaluate": lambda run: (run / "evaluate").is_dir(),
}


def _kill_driver_when(condition: Condition, folder: Path) -> None:
    """Starts the run, waits for the moment, and kills the driver alone, with no chance to clean up."""
    log = folder.with_suffix(".log")
    with log.open("a") as output:
        driver = subprocess.Popen(
            [R4T, *map(str, COMMAND), "--run-dir", str(folder)],
            stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=ROOT, env=environment(),
        )  # fmt: skip
    try:
        wait_for("the moment to kill", lambda: condition(folder) or driver.poll() is not None, timeout=600, every=0.01)
        assert driver.poll() is None, f"the run ended before it could be killed:\n{log.read_text()[-3000:]}"
        children = descendants(driver.pid)
        driver.send_signal(signal.SIGKILL)
    finally:
        driver.kill()
        driver.wait()
    assert_all_end(children)


def _finished_files(folder: Path) -> dict[Path, int]:
    """Modification times of everything that a resumed run must leave alone: manifests, shards, finished stages."""
    stages = [manifest.parent for manifest in folder.rglob("manifest.json")]
    whole = {path for stage in stages for path in stage.glob("*") if path.is_file()}
    shards = {path for last in (folder / "sets").rglob(SHARD) for path in last.parent.glob(f"{last.stem}.*")}
    return {path: path.stat().st_mtime_ns for path in whole | shards}


def test_a_run_killed_in_every_stage_finishes_without_repeating_work(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    kept: dict[Path, int] = {}
    for stage, condition in KILLS.items():
        _kill_driver_when(condition, folder)
        assert not is_finished(folder / stage), f"killed too late: {stage} was finished"
        now = _finished_files(folder)
        assert {path: now.get(path) for path in kept} == kept, f"repeated after the kill before {stage}"
        kept = now
    done = r4t(*COMMAND, "--run-dir", folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    now = _finished_files(folder)
    assert {path: now.get(path) for path in kept} == kept
    assert verify(folder) == []
    assert not list(folder.rglob(".partial-*"))
    steps = [line["step"] for line in read_metrics(folder / "metrics.jsonl") if line["stage"] == "folm"]
    assert steps == sorted(set(steps)), "the metrics repeat or skip a step"
    assert "resuming at step" in (folder / "log.txt").read_text()
