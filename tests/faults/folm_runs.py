"""Real runs of the reinforcement-learning stage in miniature, to be stopped and broken from outside."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import psutil
from support import R4T, ROOT, TINY, descendants, environment, r4t, wait_for

from r4t.lineage import read_json
from r4t.tracking import read_metrics

STEPS = 8
WARM = ("warm_start.steps=60", "rl.steps=0")
SETTINGS = (f"rl.steps={STEPS}", "rl.checkpoint_every=2", "rl.validate_every=2", "rl.keep_last=9", WARM[0])


def warm_started(folder: Path) -> Path:
    """A run directory with its prepare stage and a warm-started policy, but no reinforcement learning yet."""
    for stage in ("prepare", "folm"):
        done = r4t("run", TINY, "--stage", stage, "--run-dir", folder, "--set", WARM[0], "--set", WARM[1])
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def fork(base: Path, folder: Path) -> Path:
    """A new run directory that begins where `base` ended its warm start."""
    shutil.copytree(base / "prepare", folder / "prepare")
    for name in ("initial", "warm_start"):
        shutil.copytree(base / "folm" / name, folder / "folm" / name)
    return folder


def start(folder: Path, *settings: str, extra: Mapping[str, str] = MappingProxyType({})) -> subprocess.Popen[bytes]:
    """Starts the stage's driver; what it says goes to `<folder>.log`. extra: environment variables."""
    overrides = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
    with folder.with_suffix(".log").open("ab") as output:
        return subprocess.Popen(
            [R4T, "run", str(TINY), "--stage", "folm", "--run-dir", str(folder), *overrides],
            stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=ROOT, env=environment() | dict(extra),
        )  # fmt: skip


def finish(driver: subprocess.Popen[bytes], folder: Path, code: int = 0) -> None:
    """Waits for the driver to end with `code`."""
    try:
        assert driver.wait(timeout=900) == code, said(folder)
    finally:
        driver.kill()


def said(folder: Path) -> str:
    return folder.with_suffix(".log").read_text()[-4000:]


def wait_for_step(driver: subprocess.Popen[bytes], folder: Path, step: int) -> None:
    """Until the metrics hold `step` training steps; fails when the run ended before."""

    def reached() -> bool:
        assert driver.poll() is None, f"the run ended before step {step}:\n{said(folder)}"
        return len(steps_of(folder)) >= step

    wait_for(f"step {step}", reached, timeout=600, every=0.02)


def steps_of(folder: Path) -> list[dict[str, float]]:
    """Values of every training step, as a reader of the metrics sees them."""
    lines = [line for line in read_metrics(folder / "metrics.jsonl") if line["stage"] == "folm"]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1)), "a step is missing or repeated"
    return [line["values"] for line in lines]


def assert_whole(folder: Path) -> None:
    """Every step once, and every draw of the query stream consumed by exactly one of them."""
    steps = steps_of(folder)
    assert len(steps) == STEPS
    stop = 0
    for values in steps:
        assert values["groups/first"] == stop, "a group was lost or doubled"
        stop = values["groups/stop"]
        assert values["groups/stop"] - values["groups/first"] == values["groups/trained"] + values["groups/dropped"]
    states = [read_json(path) for path in sorted((folder / "folm" / "checkpoints").glob("*/state.json"))]
    assert [(s["step"], s["consumed"]) for s in states] == [
        (s["step"], steps[s["step"] - 1]["groups/stop"]) for s in states
    ]
    assert states[-1]["in_flight"] == [], "nothing was sampled that no step would train"


def actors(driver: subprocess.Popen[bytes], name: str) -> list[psutil.Process]:
    """The driver's living actors of a class, oldest first."""
    found = []
    for process in descendants(driver.pid):
        try:
            if " ".join(process.cmdline()).startswith(f"ray::{name}"):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return sorted(found, key=lambda process: process.create_time())
