"""The whole pipeline, as users of a cluster run it: `ray start --head`, then `ray job submit -- r4t run CONFIG`.

On one node; and, with R4T_LONG set, on two in network namespaces, each with its own address, one of which is lost in
every stage.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from network_nodes import Network, Node
from ray.job_submission import JobStatus, JobSubmissionClient
from ray_head import RAY, ray_head
from support import ROOT, TINY, environment, r4t, wait_for

from jobs.bench import shortened
from jobs.run import save_config
from r4t.config import load_config
from r4t.evaluation.training_samples import KEPT, read_samples
from r4t.methods.build import UNTRAINED
from r4t.tracking import read_metrics
from r4t.verify import verify

pytestmark = pytest.mark.slow

# Beside the tiny configuration: steps enough that a node can be lost between two of them.
SETTINGS = ["tracking.wandb=offline", "warm_start.steps=100", "rl.steps=10", "retriever.steps=150"]
# Two nodes of one CPU each can only hold one learner rank each.
LAYOUT = [
    "learner.cpus=0.6",
    "rollout.cpus=0.2",
    "scorer.cpus=0.2",
    "rl.checkpoint_every=100",
    "cluster.max_restarts=9",
]
STAGES = ("prepare", "folm", "sets", "retriever", "evaluate", "report")


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """A Ray head node of this test's own; its dashboard's address, where jobs are submitted."""
    with ray_head() as found:
        yield found


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `r4t bench` runs of the tiny configuration."""
    folder = tmp_path_factory.mktemp("config")
    save_config(folder, shortened(load_config(TINY, SETTINGS)))
    return folder / "config.yaml"


def options(settings: list[str]) -> list[str]:
    return [part for one in settings for part in ("--set", one)]


def submission(dashboard: str, config: Path, folder: Path, *settings: str, follow: Sequence[str] = ()) -> list[str]:
    command = ["r4t", "run", str(config), "--run-dir", str(folder), *options([*settings])]
    return [RAY, "job", "submit", f"--address={dashboard}", "--working-dir=.", *follow, "--", *command]


@pytest.fixture(scope="module")
def finished(dashboard: str, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a whole pipeline that ran as a job."""
    folder = tmp_path_factory.mktemp("job") / "run"
    done = subprocess.run(
        submission(dashboard, config, folder),
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


def test_one_line_of_numbers_per_step(finished: Path, config: Path) -> None:
    rl = load_config(config).rl
    steps = [line for line in read_metrics(finished / "metrics.jsonl") if line["stage"] == "folm"]
    assert [line["step"] for line in steps] == list(range(1, rl.steps + 1))
    assert all(line["values"]["policy_version"] == line["step"] for line in steps)
    assert {line["stage"] for line in read_metrics(finished / "metrics.jsonl")} >= {"prepare", "valid", "evaluate"}
    console = (finished / "log.txt").read_text()
    assert all(f"folm {step}/{rl.steps}  " in console for step in range(1, rl.steps + 1))


def test_c24_the_validation_curve_and_the_policy_it_kept(finished: Path, config: Path) -> None:
    curve = [line for line in read_metrics(finished / "metrics.jsonl") if line["stage"] == "valid"]
    assert [line["step"] for line in curve] == [0, load_config(config).rl.steps]
    kept = json.loads((finished / "folm" / "manifest.json").read_text())["metrics"]
    eligible = [line for line in curve if not any(v for k, v in line["values"].items() if k.startswith("alarm/"))]
    best = max(eligible, key=lambda line: line["values"]["reward"])
    assert kept["reward"] == best["values"]["reward"]
    assert kept["step"] in {line["step"] for line in eligible if line["values"]["reward"] == kept["reward"]}


def test_every_validation_keeps_sets_of_the_same_queries(finished: Path, config: Path) -> None:
    settings = load_config(config)
    kept = read_samples(finished / "folm")
    assert len(kept) == min(KEPT, settings.rl.validate_queries)
    for sample in kept:
        assert [step["step"] for step in sample["steps"]] == [0, settings.rl.steps]
        assert all(len(step["items"]) == settings.fanout.k for step in sample["steps"] if step["valid"])
    recorded = json.loads((finished / "folm" / "manifest.json").read_text())["files"]
    assert {f"samples/step-{step:05d}.json" for step in (0, settings.rl.steps)} <= set(recorded)


def test_w_and_b_holds_the_numbers_of_the_run(finished: Path) -> None:
    assert {path.name.rpartition("-")[2] for path in finished.glob("wandb/offline-run-*")} == set(STAGES)
    (data,) = finished.glob("wandb/offline-run-*-folm/run-*.wandb")
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


def test_bench_takes_the_rates_of_a_finished_run_and_they_plan_it(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "rates.json"
    done = r4t("bench", TINY, "--run-dir", finished, "--out", out, *options(SETTINGS))
    assert done.returncode == 0, done.stderr
    assert f"r4t plan CONFIG --rates {out}" in done.stdout.replace("\n", " ")
    planned = json.loads(r4t("plan", finished / "config.yaml", "--rates", out, "--json").stdout)["stages"]
    for stage in ("prepare", "sets", "retriever", "evaluate"):
        taken = json.loads((finished / stage / "manifest.json").read_text())["metrics"]["seconds"]
        assert planned[stage]["seconds"] == pytest.approx(taken, rel=0.3, abs=0.5), stage


def test_running_it_again_does_nothing_and_says_so(finished: Path, config: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    done = r4t("run", config, "--run-dir", finished)
    assert done.returncode == 0
    assert "is finished, nothing to do" in done.stdout
    assert str(finished / "report" / "index.html") in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}


def test_the_report_can_be_made_again(finished: Path) -> None:
    done = r4t("report", finished)
    assert done.returncode == 0, done.stderr
    assert verify(finished) == []


class Journey:
    """The same pipeline on two nodes of one CPU, which come and go while it runs."""

    def __init__(self, network: Network, config: Path, folder: Path) -> None:
        self.network, self.folder = network, folder
        self.nodes = [network.start("--num-cpus=1") for _ in range(2)]
        network.wait_for(*self.nodes)
        self.jobs, self.job = JobSubmissionClient(network.dashboard), "journey"
        # The client that follows the output may wait for ever for more of it once a node has gone.
        done = subprocess.run(
            submission(network.dashboard, config, folder, *LAYOUT, follow=["--no-wait", f"--submission-id={self.job}"]),
            capture_output=True, text=True, timeout=300, check=False, cwd=ROOT, env=environment(),
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]

    def ended(self) -> bool:
        """Whether the job has; fails with its output if it came to nothing."""
        status = self.jobs.get_job_status(self.job)
        assert status not in (JobStatus.FAILED, JobStatus.STOPPED), self.jobs.get_job_logs(self.job)[-5000:]
        return status == JobStatus.SUCCEEDED

    def console(self) -> str:
        return (self.folder / "log.txt").read_text() if (self.folder / "log.txt").is_file() else ""

    def until(self, what: str, condition: Callable[[], object]) -> None:
        def reached() -> bool:
            found = bool(condition())
            assert found or not self.ended(), f"the job ended before {what}"
            return found

        wait_for(what, reached, timeout=600, every=0.2)

    def lose(self, node: Node) -> None:
        """Without a word; a new node takes its place, as an operator of a pool would see to it."""
        self.network.kill(node)
        self.replace(node)

    def replace(self, node: Node) -> None:
        self.nodes.remove(node)
        self.nodes.append(self.network.start("--num-cpus=1"))

    def seat(self, class_name: str) -> Node:
        """A node of an actor of that class, once there is one."""
        self.until(class_name, lambda: self.network.seats(class_name))
        return sorted(self.network.seats(class_name), key=self.nodes.index)[0]


@pytest.fixture(scope="module")
def asked_for() -> None:
    if "R4T_LONG" not in os.environ:
        pytest.skip("takes 5 to 12 minutes on two cores: R4T_LONG=1 runs it")


@pytest.fixture(scope="module")
def moved(
    asked_for: None,  # noqa: ARG001  before the network is made
    network: Network,
    config: Path,
    finished: Path,  # noqa: ARG001  one pipeline at a time
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The run directory of a pipeline that lost a node in every stage: after a notice while the policy trains, without
    a word in the others."""
    folder = tmp_path_factory.mktemp("moved") / "run"
    journey = Journey(network, config, folder)
    try:
        journey.until("the warm start", lambda: "warm_start" in journey.console())
        assert network.seats("PolicyLearner") == set(journey.nodes), "the two ranks sit on two nodes"
        (leaving,) = set(journey.nodes) - {journey.seat("RolloutWorker")}
        with network.lossy(leaving) as dropped:
            network.cut(leaving, seconds=5)
            numbers = folder / "metrics.jsonl"
            journey.until("a step", lambda: "folm" in {line["stage"] for line in read_metrics(numbers)})
            assert dropped() > 0
        network.drain(leaving, seconds=600)
        journey.replace(leaving)
        journey.until("a checkpoint", lambda: any((folder / "folm" / "checkpoints").glob("step-*")))
        network.kill(leaving)
        journey.lose(journey.seat("ShardSampler"))
        journey.lose(journey.seat("RetrieverLearner"))
        journey.until("the evaluation", lambda: (folder / "evaluate").is_dir())
        journey.lose(journey.seat("RolloutWorker"))
        wait_for("the end", journey.ended, timeout=900, every=1.0)
    finally:
        journey.jobs.stop_job(journey.job)
    return folder


def test_a_node_lost_in_every_stage_leaves_what_one_undisturbed_node_gives(finished: Path, moved: Path) -> None:
    """Bit for bit: data, policies, sets, retrievers, and every value that the evaluation measured. Times differ."""
    assert verify(moved) == []
    for stage in ("prepare", "folm", "retriever", "retriever/zero_shot"):
        here, there = (json.loads((run / stage / "manifest.json").read_text())["files"] for run in (moved, finished))
        assert {name for name in here if here[name] != there.get(name)} == set(), stage
        assert here.keys() == there.keys(), stage
    shards = sorted(path.relative_to(finished) for path in (finished / "sets").rglob("*.parquet"))
    assert shards == sorted(path.relative_to(moved) for path in (moved / "sets").rglob("*.parquet"))
    for shard in shards:  # whose metadata name the run's own prepare stage
        assert pq.read_table(moved / shard).equals(pq.read_table(finished / shard)), shard
    for name in ("values.safetensors", "samples.json"):
        assert (moved / "evaluate" / name).read_bytes() == (finished / "evaluate" / name).read_bytes(), name


def test_a_draining_node_costs_no_step_that_was_done(moved: Path) -> None:
    """`rl.checkpoint_every` is longer than the run: each checkpoint is one that the notice asked for."""
    console = (moved / "log.txt").read_text()
    before, found, after = console.partition("folm: learner group is lost")
    assert found, console
    asked = [int(step) for step in re.findall(r"is draining .*: checkpoint after step (\d+)", before)]
    assert asked == list(range(asked[0], asked[-1] + 1))
    (resumed,) = re.findall(r"folm: resuming at step (\d+)", after)
    assert int(resumed) in asked[-2:], "the last one, or the one before where the node went while it was written"


def test_a_node_that_goes_without_a_word_costs_one_restart(moved: Path) -> None:
    console = (moved / "log.txt").read_text()
    assert re.search(r"retriever: .* died .*: restart 1 of at most 9", console)
    assert re.search(r"evaluate: rollout worker .* died .*: restart 1 of at most 9", console)
