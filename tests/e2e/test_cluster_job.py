"""The whole pipeline, as users of a cluster run it: `ray start --head`, then `ray job submit -- r4t run CONFIG`."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support import ROOT, TINY, environment, r4t, wait_for

from r4t.config import load_config
from r4t.evaluation.training_samples import KEPT, read_samples
from r4t.methods.build import UNTRAINED
from r4t.tracking import read_metrics
from r4t.verify import verify

pytestmark = pytest.mark.slow

RAY = str(Path(sys.executable).with_name("ray"))
STAGES = ("prepare", "folm", "sets", "retriever", "evaluate", "report")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """A Ray head node of this test's own; its dashboard's address, where jobs are submitted."""
    temporary = tempfile.mkdtemp(prefix="r4t-", dir="/tmp")  # Ray's socket paths must be short
    port = _free_port()
    head = subprocess.Popen(
        [
            RAY, "start", "--head", "--block", "--disable-usage-stats", f"--temp-dir={temporary}",
            f"--port={_free_port()}", f"--dashboard-port={port}", f"--ray-client-server-port={_free_port()}",
            f"--dashboard-agent-listen-port={_free_port()}", f"--num-cpus={psutil.cpu_count()}",
        ],
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment({"PATH": f"{Path(RAY).parent}:{environment()['PATH']}"}),
    )  # fmt: skip

    def answers() -> bool:
        assert head.poll() is None, "ray start --head ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for("the dashboard", answers, timeout=120)
        yield f"http://127.0.0.1:{port}"
    finally:
        processes = psutil.Process(head.pid).children(recursive=True) if head.poll() is None else []
        head.terminate()
        head.wait(timeout=60)
        _, alive = psutil.wait_procs(processes, timeout=20)
        for process in alive:
            process.kill()
        shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture(scope="module")
def finished(dashboard: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a whole pipeline that ran as a job."""
    folder = tmp_path_factory.mktemp("job") / "run"
    config = TINY.relative_to(ROOT)
    done = subprocess.run(
        [
            RAY, "job", "submit", f"--address={dashboard}", "--working-dir=.", "--",
            "r4t", "run", str(config), "--run-dir", str(folder), "--set", "tracking.wandb=offline",
        ],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        cwd=ROOT,
        env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert "succeeded" in done.stdout
    assert "peak memory" in done.stdout
    return folder


def test_c59_every_stage_finishes_on_cpu_and_the_chain_holds(finished: Path) -> None:
    assert verify(finished) == []
    found = json.loads(r4t("status", finished, "--json").stdout)
    assert found["finished"]
    assert {name: stage["state"] for name, stage in found["stages"].items()} == dict.fromkeys(STAGES, "finished")


def test_one_line_of_numbers_per_step(finished: Path) -> None:
    config = load_config(TINY)
    steps = [line for line in read_metrics(finished / "metrics.jsonl") if line["stage"] == "folm"]
    assert [line["step"] for line in steps] == list(range(1, config.rl.steps + 1))
    assert all(line["values"]["policy_version"] == line["step"] for line in steps)
    assert {line["stage"] for line in read_metrics(finished / "metrics.jsonl")} >= {"prepare", "valid", "evaluate"}
    console = (finished / "log.txt").read_text()
    assert all(f"folm {step}/{config.rl.steps}  " in console for step in range(1, config.rl.steps + 1))


def test_c24_the_validation_curve_and_the_policy_it_kept(finished: Path) -> None:
    curve = [line for line in read_metrics(finished / "metrics.jsonl") if line["stage"] == "valid"]
    assert [line["step"] for line in curve] == [0, load_config(TINY).rl.steps]
    kept = json.loads((finished / "folm" / "manifest.json").read_text())["metrics"]
    eligible = [line for line in curve if not any(v for k, v in line["values"].items() if k.startswith("alarm/"))]
    best = max(eligible, key=lambda line: line["values"]["reward"])
    assert kept["reward"] == best["values"]["reward"]
    assert kept["step"] in {line["step"] for line in eligible if line["values"]["reward"] == kept["reward"]}


def test_every_validation_keeps_sets_of_the_same_queries(finished: Path) -> None:
    config = load_config(TINY)
    kept = read_samples(finished / "folm")
    assert len(kept) == min(KEPT, config.rl.validate_queries)
    for sample in kept:
        assert [step["step"] for step in sample["steps"]] == [0, config.rl.steps]
        assert all(len(step["items"]) == config.fanout.k for step in sample["steps"] if step["valid"])
    recorded = json.loads((finished / "folm" / "manifest.json").read_text())["files"]
    assert {f"samples/step-{step:05d}.json" for step in (0, config.rl.steps)} <= set(recorded)


def test_w_and_b_holds_the_numbers_of_the_run(finished: Path) -> None:
    (data,) = finished.glob("wandb/offline-run-*/run-*.wandb")
    content = data.read_bytes()
    assert b"folm/reward/mean" in content
    assert b"folm/step" in content


def test_the_evaluation_compares_every_method(finished: Path) -> None:
    metrics = json.loads((finished / "evaluate" / "metrics.json").read_text())
    assert metrics["schema"] == 1
    baselines = {*UNTRAINED, "zero_shot", "best_of_n"}
    assert set(metrics["methods"]) == baselines | {"r4t_folm", "r4t_diffusion", "zero_shot_diffusion"}
    assert "<svg" in (finished / "report" / "index.html").read_text()


def test_the_finished_run_answers_queries(finished: Path) -> None:
    done = r4t("retrieve", finished, "light summer lunch", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["method"] == "r4t_diffusion"
    assert json.loads(done.stdout)["items"]


def test_running_it_again_does_nothing_and_says_so(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    done = r4t("run", TINY, "--run-dir", finished, "--set", "tracking.wandb=offline")
    assert done.returncode == 0
    assert "is finished, nothing to do" in done.stdout
    assert str(finished / "report" / "index.html") in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}


def test_the_report_can_be_made_again(finished: Path) -> None:
    done = r4t("report", finished)
    assert done.returncode == 0, done.stderr
    assert verify(finished) == []
