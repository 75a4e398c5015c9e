"""Seats and bundles: who sits where, and how weights travel between them."""

from __future__ import annotations

import pytest

from cluster.devices import weight_transport
from cluster.roles import bundles, seats
from r4t.config import Config, parse_config


def config(device: str, colocate: bool) -> Config:
    return parse_config(
        {
            "cluster": {"device": device},
            "rollout": {"workers": 2, "colocate": colocate, "cpus": 2},
            "learner": {"ranks": 2, "cpus": 1},
            "scorer": {"cpus": 0.5},
        }
    )


@pytest.mark.parametrize(
    ("device", "colocate", "transport"),
    [("cpu", False, "file"), ("cpu", True, "file"), ("cuda", False, "nccl"), ("cuda", True, "ipc")],
)
def test_the_device_decides_how_weights_travel(device: str, colocate: bool, transport: str) -> None:
    assert weight_transport(config(device, colocate)) == transport


def test_every_actor_has_a_bundle_of_its_own() -> None:
    assert bundles(seats(config("cpu", True))) == [{"CPU": 2}, {"CPU": 2}, {"CPU": 1}, {"CPU": 1}, {"CPU": 0.5}]
    assert [b.get("GPU", 0) for b in bundles(seats(config("cuda", False)))] == [1, 1, 1, 1, 0]


def test_colocated_a_learner_rank_sits_on_the_gpu_of_its_rollout_worker() -> None:
    wanted = seats(config("cuda", True))
    assert bundles(wanted) == [{"CPU": 3, "GPU": 1}, {"CPU": 3, "GPU": 1}, {"CPU": 0.5}]
    assert [(s.role, s.bundle) for s in wanted] == [
        ("rollout", 0), ("rollout", 1), ("learner", 0), ("learner", 1), ("scorer", 2),
    ]  # fmt: skip
