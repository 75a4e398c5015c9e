"""The reinforcement-learning stage is stopped and broken from outside; it goes on as if nothing had happened."""

from __future__ import annotations

import random
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from folm_runs import STEPS, actors, assert_whole, finish, fork, said, start, steps_of, wait_for_step, warm_started
from safetensors.torch import load_file
from support import assert_all_end, descendants, flip

from benchmarks.chaos.clock import Clock
from r4t.lineage import read_json

pytestmark = pytest.mark.slow
SEATS = {"RolloutWorker": "rollout worker", "RewardScorer": "scorer", "PolicyLearner": "learner group"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warm_started(tmp_path_factory.mktemp("warm") / "run")


@pytest.fixture(scope="module")
def straight(base: Path) -> Path:
    """The synchronous run that nothing stops."""
    folder = fork(base, base.parent / "straight")
    finish(start(folder), folder)
    assert_whole(folder)
    return folder


def tensors(folder: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    """Policy weights, and every rank's master weights and moments, after `step` steps."""
    files = sorted((folder / "folm" / "checkpoints" / f"step-{step:06d}").glob("*.safetensors"))
    return {f"{path.name}:{name}": tensor for path in files for name, tensor in load_file(path).items()}


def test_a_run_that_is_killed_and_terminated_ends_with_the_same_bits(straight: Path, base: Path) -> None:
    """SIGKILL of the driver at a random moment; SIGTERM of the resumed one; then to the end."""
    rng = random.Random(5)
    folder = fork(base, base.parent / "stopped")
    driver = start(folder)
    wait_for_step(driver, folder, rng.randint(2, 3))
    time.sleep(rng.random())
    children = descendants(driver.pid)
    driver.kill()
    driver.wait()
    assert_all_end(children, timeout=180)
    killed_after = len(steps_of(folder))
    *_, newest = sorted((folder / "folm" / "checkpoints").glob("step-*"))
    flip(newest / "rank-0.safetensors", -1)  # in a moment, where safetensors itself sees nothing

    driver = start(folder)
    wait_for_step(driver, folder, killed_after + 1)
    driver.send_signal(signal.SIGTERM)
    finish(driver, folder, code=143)
    terminated_after = len(steps_of(folder))
    assert (folder / "folm" / "checkpoints" / f"step-{terminated_after:06d}" / "state.json").is_file()

    assert f"{newest} is damaged (rank-0.safetensors)" in folder.with_suffix(".log").read_text()
    finish(start(folder), folder)
    assert f"resuming at step {terminated_after}" in said(folder)
    assert_whole(folder)
    here, there = tensors(folder), tensors(straight)
    assert {name.split(":")[0] for name in here} == {"model.safetensors", "rank-0.safetensors", "rank-1.safetensors"}
    assert here.keys() == there.keys()
    assert [name for name in here if not torch.equal(here[name], there[name])] == []
    for name in ("reward/mean", "learner/mismatch", "nll/engine", "groups/dropped"):
        assert [v[name] for v in steps_of(folder)] == [v[name] for v in steps_of(straight)], name
    kept, expected = (read_json(run / "folm" / "policy" / "validation.json") for run in (folder, straight))
    assert kept == expected, "and the same policy is kept"
    early = tensors(straight, 2)
    assert not all(torch.equal(early[name], there[name]) for name in there), "the policy did train"


def test_every_kind_of_actor_is_killed_and_no_group_is_lost_or_doubled(base: Path) -> None:
    """One step off-policy, so that work is in flight at every moment."""
    rng = random.Random(11)
    folder = fork(base, base.parent / "broken")
    driver = start(folder, "rl.staleness=1")
    for step, name in enumerate(rng.sample(list(SEATS), k=3), start=1):
        wait_for_step(driver, folder, step)
        time.sleep(rng.random() * 0.5)
        rng.choice(actors(driver, name)).kill()
    finish(driver, folder)
    assert_whole(folder)
    lost = re.findall(r"folm: (\D*?)(?: \d+)? is lost", (folder / "log.txt").read_text())
    assert sorted(set(lost)) == sorted(SEATS.values()), said(folder)
    assert max(values["policy_age/max"] for values in steps_of(folder)) == 1


def test_who_stands_still_is_named_and_another_takes_the_seat(base: Path) -> None:
    """SIGSTOP to one of each kind, which then neither answers nor dies."""
    rng = random.Random(7)
    folder = fork(base, base.parent / "frozen")
    driver = start(folder, "cluster.call_timeout=35", "cluster.max_restarts=9")
    frozen = []
    for step, name in enumerate(rng.sample(list(SEATS), k=3), start=1):
        wait_for_step(driver, folder, step)
        frozen.append(rng.choice(actors(driver, name)))
        frozen[-1].send_signal(signal.SIGSTOP)
    finish(driver, folder)
    assert_whole(folder)
    log = (folder / "log.txt").read_text()
    missed = re.findall(r"folm: (\D*?)(?: \d+)? is lost \(.*did not answer within 35 s \(cluster.call_timeout\)", log)
    assert set(SEATS.values()) <= set(missed), log[-4000:]
    assert_all_end(frozen, timeout=60)


def test_a_wait_on_a_clock_that_went_back_ends_the_run_which_goes_on(
    straight: Path, base: Path, tmp_path: Path
) -> None:
    """Whether Ray would still start another worker is chance: where it does not, the wait has no other end."""
    folder, clock = fork(base, base.parent / "back"), Clock(tmp_path)
    settings = ("cluster.call_timeout=30", "cluster.max_restarts=9")
    driver = start(folder, *settings, extra=clock.environment)
    wait_for_step(driver, folder, 2)
    clock.jump(-3600)
    wait_for_step(driver, folder, 3)  # as long as nothing is lost, nothing happens
    children = descendants(driver.pid)
    actors(driver, "RolloutWorker")[0].send_signal(signal.SIGSTOP)
    finish(driver, folder, code=2)
    assert re.search(
        r"error: the wall clock went back, by 3\d\d\d s and more, .* run the same command again", said(folder)
    )
    assert_all_end(children, timeout=60)

    finish(start(folder, *settings, extra=clock.environment), folder)
    assert_whole(folder)
    here, there = tensors(folder), tensors(straight)
    assert [name for name in here if not torch.equal(here[name], there[name])] == []


def test_a_run_whose_groups_are_all_uninformative_ends_without_training(base: Path) -> None:
    folder = fork(base, base.parent / "filtered")
    finish(start(folder, "learner.ranks=1", "rl.staleness=1", "rl.std_tolerance=100", "rl.max_refill=1"), folder)
    assert_whole(folder)
    for values in steps_of(folder):
        assert (values["groups/trained"], values["groups/dropped"], values["groups/refilled"]) == (0, 8, 4)
        assert "learner/seconds" not in values
    assert "no informative group among 8" in said(folder)
    before, after = load_file(folder / "folm" / "warm_start" / "model.safetensors"), tensors(folder)
    assert all(torch.equal(after[f"model.safetensors:{name}"], value) for name, value in before.items())


def test_restarts_are_limited(base: Path) -> None:
    folder = fork(base, base.parent / "limited")
    driver = start(folder, "learner.ranks=1", "cluster.max_restarts=0")
    wait_for_step(driver, folder, 1)
    actors(driver, "RolloutWorker")[0].kill()
    finish(driver, folder, code=1)
    assert "rollout worker 0 is lost again" in said(folder)
    assert "cluster.max_restarts" in said(folder)
