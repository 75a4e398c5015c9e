"""The whole pipeline, as users of a cluster run it: `ray start --head`, then `ray job submit -- r4t run CONFIG`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_head import RAY, ray_head
from support import ROOT, TINY, environment, r4t

from r4t.config import load_config
from r4t.evaluation.training_samples import KEPT, read_samples
from r4t.methods.build import UNTRAINED
from r4t.tracking import read_metrics
from r4t.verify import verify

pytestmark = pytest.mark.slow

SETTING = "tracking.wandb=offline"  # beside the tiny configuration
STAGES = ("prepare", "folm", "sets", "retriever", "evaluate", "report")


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """A Ray head node of this test's own; its dashboard's address, where jobs are submitted."""
    with ray_head() as found:
        yield found


@pytest.fixture(scope="module")
def finished(dashboard: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a whole pipeline that ran as a job."""
    folder = tmp_path_factory.mktemp("job") / "run"
    command = ["r4t", "run", str(TINY.relative_to(ROOT)), "--run-dir", str(folder), "--set", SETTING]
    done = subprocess.run(
        [RAY, "job", "submit", f"--address={dashboard}", "--working-dir=.", "--", *command],
        capture_output=True, text=True, timeout=900, check=False, cwd=ROOT, env=environment(),
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
    done = r4t("run", TINY, "--run-dir", finished, "--set", SETTING)
    assert done.returncode == 0
    assert "is finished, nothing to do" in done.stdout
    assert str(finished / "report" / "index.html") in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}


def test_the_report_can_be_made_again(finished: Path) -> None:
    done = r4t("report", finished)
    assert done.returncode == 0, done.stderr
    assert verify(finished) == []
