"""Whole weights under ZeRO-3 where collectives end out of order, as they do on a CPU."""

from __future__ import annotations

import sys

import pytest
import torch
from ray import cloudpickle
from rl_fixtures import configuration

from cluster.launch import gather, launch_group, start_deepspeed
from cluster.zero import deepspeed_config, full_weights
from r4t.config import Config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]
TIMES = 15
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's workers cannot import a test


def wide_then_narrow() -> torch.nn.Module:
    """The last of a bucket's collectives is long over while its first still runs."""
    torch.manual_seed(0)
    widths = {"wide": 2048, "narrow": 8, "last": 8}
    return torch.nn.ModuleDict({name: torch.nn.Linear(n, n, bias=False) for name, n in widths.items()})


class Rank:
    def __init__(self, rank: int, world: int, config: Config) -> None:  # noqa: ARG002  what a group's class takes
        model = wide_then_narrow()
        self.before = {name: value.detach().clone() for name, value in model.named_parameters()}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        start = start_deepspeed(config).initialize
        self.engine, *_ = start(model=model, optimizer=optimizer, config=deepspeed_config(config, 1.0))

    def differing(self) -> list[str]:
        """*Collective.* Weights that are not what they were, once for every time that they were gathered so."""
        return [
            name
            for _ in range(TIMES)
            for name, value in full_weights(self.engine.module, 3, keep=True).items()
            if not torch.equal(value, self.before[name])
        ]


def test_every_weight_of_a_bucket_has_arrived_before_it_is_read() -> None:
    config = configuration(ranks=2, zero_stage=3)
    ranks = launch_group(Rank, config, ranks=2, cpus=0.2)
    assert gather([rank.differing.remote() for rank in ranks], config, "ranks") == [[], []]
