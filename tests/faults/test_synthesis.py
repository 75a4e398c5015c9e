"""Engines, scorers and the driver of the synthesis stage are killed at random moments; the rows stay the same."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support import R4T, assert_all_end, descendants, environment, r4t, wait_for

from benchmarks.chaos.clock import Clock
from benchmarks.synthesis_faults import Driver, actors, differences, fork, standing, wait_until, with_faults
from jobs.run import save_config
from r4t.config import Config
from r4t.sets import read_shard
from r4t.sets.reader import shard_paths
from r4t.verify import verify
from tests.integration.small_run import TRAIN, make_run, settings

pytestmark = pytest.mark.slow
SAMPLES = 24


def configuration() -> Config:
    """A taught policy's answers in 16 shards, each a part of one query's or a whole one's."""
    config = settings()
    sets = config.sets.model_copy(update={"samples_per_query": SAMPLES, "shard_answers": 16})
    return config.model_copy(
        update={
            "sets": sets,
            "rl": config.rl.model_copy(update={"max_tokens": 40}),
            "evaluate": config.evaluate.model_copy(update={"zero_shot_diffusion": False}),
        }
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = configuration()
    run = make_run(tmp_path_factory.mktemp("base") / "run", config, taught=True)
    save_config(run.folder, config)
    run.close()
    return run.folder


@pytest.fixture(scope="module")
def whole(base: Path) -> Path:
    """The run that nothing disturbs."""
    folder = fork(base, base.parent / "whole")
    assert with_faults(folder) == []
    return folder


def test_rows_after_kills_are_those_of_an_undisturbed_run(base: Path, whole: Path, tmp_path: Path) -> None:
    broken = fork(base, tmp_path / "broken")
    kills = with_faults(broken, ["driver", "engine", "scorer"], pause=0.2)
    assert {kill.victim for kill in kills} == {"engine", "scorer", "driver"}
    assert all(0 < kill.shards < 2 * TRAIN for kill in kills), "killed while shards were still to be made"
    assert differences(whole, broken) == []
    assert verify(broken / "sets") == []
    shards = [read_shard(path) for path in shard_paths(broken / "sets")]
    query, sample = (np.concatenate([getattr(shard, name) for shard in shards]) for name in ("query", "sample"))
    assert list(zip(query, sample, strict=True)) == [(q, s) for q in range(TRAIN) for s in range(SAMPLES)]
    assert np.concatenate([shard.valid for shard in shards]).mean() > 0.5, "else equality would say little"


def test_who_stands_still_is_named_and_another_does_its_work(base: Path, whole: Path, tmp_path: Path) -> None:
    folder = fork(base, tmp_path / "run", ["cluster.call_timeout=12"])
    driver = Driver(folder, "local")
    wait_until(lambda: standing(folder) > 0, driver)
    stopped = {who: actors(name)[0] for who, name in (("an engine", "ShardSampler"), ("a scorer", "ShardScorer"))}
    for process in stopped.values():
        process.send_signal(signal.SIGSTOP)
    wait_until(lambda: driver.process.poll() == 0, driver)
    said = folder.with_suffix(".log").read_text()
    for who, process in stopped.items():
        assert re.search(
            rf"{who} \(process {process.pid} on .*not heard of for 12 s \(cluster\.call_timeout\)", said
        ), said
        assert not process.is_running()
    assert differences(whole, folder) == []
    assert verify(folder / "sets") == []


def test_sigterm_stops_the_stage_and_it_goes_on(base: Path, tmp_path: Path) -> None:
    folder = fork(base, tmp_path / "run")
    command = [R4T, "run", str(folder / "config.yaml"), "--run-dir", str(folder), "--stage", "sets"]
    with (tmp_path / "log").open("wb") as output:
        driver = subprocess.Popen(command, stdout=output, stderr=output, env=environment())
    wait_for("the first shard", lambda: standing(folder) > 0 or driver.poll() is not None, timeout=600)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(timeout=60) == 128 + signal.SIGTERM, (tmp_path / "log").read_text()[-3000:]
    stood = {path: path.stat().st_mtime_ns for path in shard_paths(folder / "sets")}
    assert 0 < len(stood) < 2 * TRAIN
    done = r4t(*command[1:])
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path: path.stat().st_mtime_ns for path in stood} == stood
    assert standing(folder) == 2 * TRAIN
    assert verify(folder / "sets") == []


def test_an_engine_that_dies_after_the_clock_went_back_ends_the_stage_which_goes_on(
    base: Path, whole: Path, tmp_path: Path
) -> None:
    """Ray Data would wait for it as long as the clock went back."""
    folder, clock = fork(base, tmp_path / "run", ["cluster.call_timeout=20"]), Clock(tmp_path)
    command = [R4T, "run", str(folder / "config.yaml"), "--run-dir", str(folder), "--stage", "sets"]
    with (tmp_path / "log").open("wb") as output:
        driver = subprocess.Popen(command, stdout=output, stderr=output, env=environment() | clock.environment)
    wait_for("the first shard", lambda: standing(folder) > 0 or driver.poll() is not None, timeout=600)
    children = descendants(driver.pid)
    clock.jump(-3600)
    actors("ShardSampler")[0].kill()
    assert driver.wait(timeout=180) == 2, (tmp_path / "log").read_text()[-3000:]
    assert "error: the wall clock went back" in (tmp_path / "log").read_text()
    assert_all_end(children, timeout=60)
    done = r4t(*command[1:])
    assert done.returncode == 0, done.stderr[-3000:]
    assert differences(whole, folder) == []
    assert verify(folder / "sets") == []
