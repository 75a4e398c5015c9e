"""SIGSTOP where retrievers are trained and evaluated: who stands still is named, and nothing else changes."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from folm_runs import actors
from support import R4T, assert_all_end, environment, raylets, wait_for

from jobs.run import save_config
from r4t.lineage import read_json
from r4t.verify import verify
from tests.integration.small_run import make_run, make_sets, settings

pytestmark = pytest.mark.slow
LIMIT = 60  # seconds for a call: a learner or an engine starts in 10, and on a busy machine in 40


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has its training sets."""
    config = settings(steps=600, checkpoint_every=100, validate_every=200)
    few = {"queries": 4, "best_of": 256, "latency_batches": (), "zero_shot_diffusion": False}
    config = config.model_copy(update={"evaluate": config.evaluate.model_copy(update=few)})
    run = make_run(tmp_path_factory.mktemp("freeze") / "run", config, taught=True)
    make_sets(run, run.folder / "sets")
    save_config(run.folder, config)
    run.close()
    return run.folder


@pytest.fixture(scope="module")
def trained(base: Path) -> Path:
    """The same with retrievers, which nothing disturbed."""
    return staged(shutil.copytree(base, base.parent / "trained"), "retriever")[0]


def staged(folder: Path, stage: str, moment: Callable[[], bool] | None = None, actor: str = "") -> tuple[Path, str]:
    """Runs a stage with LIMIT as `cluster.call_timeout`, at `moment` with an actor that stops for good.

    Returns the run, and what the stage said.
    """
    log = folder.with_suffix(".log")
    with log.open("wb") as output:
        command = [R4T, "run", str(folder / "config.yaml"), "--run-dir", str(folder), "--stage", stage]
        command += ["--set", f"cluster.call_timeout={LIMIT}"]
        driver = subprocess.Popen(command, stdout=output, stderr=output, env=environment())
    try:
        if moment:
            wait_for("the moment", lambda: moment() or driver.poll() is not None, timeout=300, every=0.02)
            frozen = actors(driver, actor)[-1]
            frozen.send_signal(signal.SIGSTOP)
            assert not (folder / stage / "manifest.json").exists(), "stopped too late"
        assert driver.wait(timeout=600) == 0, log.read_text()[-4000:]
    finally:
        driver.kill()
    if moment:
        assert_all_end([frozen], timeout=60)
    return folder, log.read_text()


def test_a_rank_that_stands_still_is_named_and_training_ends_with_the_same_weights(base: Path, trained: Path) -> None:
    folder = shutil.copytree(base, base.parent / "rank")
    checkpoints = folder / "retriever" / "checkpoints"
    _, said = staged(folder, "retriever", lambda: any(checkpoints.glob("step-*")), "RetrieverLearner")
    assert re.search(
        rf"retriever learner ranks \[0\] of 1 did not answer within {LIMIT} s \(cluster.call_timeout\)", said
    ), said
    assert verify(folder / "retriever") == []
    weights = [
        read_json(run / "retriever" / "manifest.json")["files"]["model.safetensors"] for run in (folder, trained)
    ]
    assert weights[0] == weights[1]


def test_an_engine_that_stands_still_is_named_and_evaluation_ends_with_the_same_numbers(trained: Path) -> None:
    whole, _ = staged(shutil.copytree(trained, trained.parent / "whole"), "evaluate")
    folder = shutil.copytree(trained, trained.parent / "engine")
    log = folder.with_suffix(".log")
    _, said = staged(folder, "evaluate", lambda: "evaluate zero_shot" in log.read_text(), "RolloutWorker")
    assert re.search(rf"rollout worker \[0\] of 1 did not answer within {LIMIT} s \(cluster.call_timeout\)", said), said
    numbers = [read_json(run / "evaluate" / "metrics.json")["methods"] for run in (folder, whole)]
    assert numbers[0] == numbers[1]


def test_a_driver_whose_node_has_ended_says_so_at_once_and_goes_on_when_asked_again(trained: Path) -> None:
    """Ray goes on waiting for actors that nobody starts any more; and one that stands still ends with the node."""
    folder = shutil.copytree(trained, trained.parent / "node")
    log = folder.with_suffix(".log")
    command = [R4T, "run", str(folder / "config.yaml"), "--run-dir", str(folder), "--stage", "evaluate"]
    with log.open("wb") as output:
        driver = subprocess.Popen(
            [*command, "--set", "cluster.call_timeout=900"], stdout=output, stderr=output, env=environment()
        )
    try:
        wait_for("an answer", lambda: "evaluate zero_shot" in log.read_text() or driver.poll() is not None, timeout=300)
        frozen = actors(driver, "RolloutWorker")[-1]
        frozen.send_signal(signal.SIGSTOP)
        raylets(driver.pid)[0].kill()
        assert_all_end([frozen], timeout=10)
        assert driver.wait(timeout=120) == 2, log.read_text()[-4000:]
    finally:
        driver.kill()
    assert "the Ray node that this command runs on has ended" in log.read_text()
    staged(folder, "evaluate")
    assert verify(folder / "evaluate") == []
