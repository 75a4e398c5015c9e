"""Weights from learners to rollout engines over NCCL (three GPUs) and over CUDA IPC (one GPU)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from cluster.launch import gather, launch_group
from cluster.learner import PolicyLearner
from cluster.roles import place
from cluster.rollout_actor import seat_rollout
from cluster.self_test import self_test
from cluster.session import session
from cluster.weights import WeightChannel
from r4t.config import Config, parse_config
from tests.integration.rl_fixtures import PHASE, batch, configuration, make_policy

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
QUERY = (3, "cosy dinner")


def on_gpus(workers: int, *, colocate: bool, **learner: Any) -> Config:
    raw = configuration(rollout={"workers": workers, "colocate": colocate, "dtype": "bfloat16"}, **learner).model_dump()
    return parse_config(raw | {"cluster": {"device": "cuda"}})


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return make_policy(tmp_path / "policy")


@pytest.mark.parametrize(
    ("workers", "colocate", "learner"),
    [
        (2, False, {"ranks": 1, "zero_stage": 2}),
        (1, False, {"ranks": 2, "zero_stage": 3}),
        (1, True, {"ranks": 1, "zero_stage": 2}),
        (1, True, {"ranks": 1, "zero_stage": 3}),
    ],
    ids=["nccl-two-engines", "nccl-zero-3", "ipc", "ipc-zero-3"],
)
def test_every_engine_holds_each_published_version(
    model_dir: Path, tmp_path: Path, workers: int, colocate: bool, learner: dict[str, Any]
) -> None:
    config = on_gpus(workers, colocate=colocate, dtype="bfloat16", **learner)
    needed = learner["ranks"] if colocate else workers + learner["ranks"]
    if torch.cuda.device_count() < needed:
        pytest.skip(f"needs {needed} CUDA devices, this machine has {torch.cuda.device_count()}")
    with session(config, "local"):
        placement = place(config)
        rollouts = [seat_rollout(config, model_dir, placement, i) for i in range(workers)]
        learners = launch_group(PolicyLearner, config, ranks=config.learner.ranks, placement=placement)
        gather([rank.begin.remote(model_dir, PHASE) for rank in learners], config, "ranks")
        with WeightChannel(config, learners, rollouts, tmp_path) as channel:
            for version in (1, 2):
                gather([rank.update.remote(batch(), version, 1e-3) for rank in learners], config, "ranks")
                sync = channel.publish(version)
                assert sync.bytes > 0
                self_test(config, learners, rollouts, QUERY, 0)
                answers = gather(
                    [r.generate.remote([QUERY], samples=2, temperature=1.0, seed=0) for r in rollouts],
                    config,
                    "rollouts",
                )
                assert {c.policy_version for part in answers for c in part} == {version}
            ray.get(channel.load(rollouts[0]))  # as after a restart: all meet again in a new group
            self_test(config, learners, rollouts, QUERY, 0)
            gather([rank.update.remote(batch(), 3, 1e-3) for rank in learners], config, "ranks")
            with pytest.raises(RuntimeError, match="the learner has moved on"):
                channel.load(rollouts[0])
        placement.release()
    assert not ray.is_initialized()
