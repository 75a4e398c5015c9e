"""Seats and bundles: who sits where, and how weights travel between them."""

from __future__ import annotations

from typing import Any

import pytest

import cluster.devices
from cluster.devices import role_environment, search_device, weight_transport
from r4t.config import Config, parse_config
from r4t.seats import Role, bundles, seats


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


@pytest.mark.parametrize(
    ("role", "section", "own"),
    [("rollout", {}, 12), ("rollout", {"tensor_parallel": 2}, 6), ("learner", {"ranks": 3}, 4), ("scorer", {}, 12)],
)
def test_an_actor_has_its_share_of_the_cores_or_as_many_threads_as_told(
    role: Role, section: dict[str, Any], own: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.devices, "cores", lambda: 12)
    for threads, expected in ((None, own), (5, 5)):
        config = parse_config({role: {**section, "threads": threads}})
        assert role_environment(role, config)["OMP_NUM_THREADS"] == str(expected)


def test_every_actor_has_a_bundle_of_its_own() -> None:
    assert bundles(seats(config("cpu", True))) == [{"CPU": 2}, {"CPU": 2}, {"CPU": 1}, {"CPU": 1}, {"CPU": 0.5}]
    assert [b.get("GPU", 0) for b in bundles(seats(config("cuda", False)))] == [1, 1, 1, 1, 0]


def test_colocated_a_learner_rank_sits_on_the_gpu_of_its_rollout_worker() -> None:
    wanted = seats(config("cuda", True))
    assert bundles(wanted) == [{"CPU": 3, "GPU": 1}, {"CPU": 3, "GPU": 1}, {"CPU": 0.5}]
    assert [(s.role, s.bundle) for s in wanted] == [
        ("rollout", 0), ("rollout", 1), ("learner", 0), ("learner", 1), ("scorer", 2),
    ]  # fmt: skip


def test_a_sharded_index_has_a_seat_for_every_shard() -> None:
    wanted = seats(parse_config({"index": {"shards": 3}, "scorer": {"cpus": 0.125}}))
    assert [(seat.cpus, seat.gpus) for seat in wanted if seat.role == "shard"] == [(0.125, 0.0)] * 3
    assert not [seat for seat in seats(Config()) if seat.role == "shard"]


@pytest.mark.parametrize(
    ("device", "share", "searches_on"), [("cpu", 0.5, "cpu"), ("cuda", 0, "cpu"), ("cuda", 0.5, "cuda")]
)
def test_scorers_search_on_the_gpu_they_hold(device: str, share: float, searches_on: str) -> None:
    config = parse_config({"cluster": {"device": device}, "scorer": {"gpus": share}})
    assert search_device(config).type == searches_on
    held = [seat.gpus for seat in seats(config) if seat.role == "scorer"]
    assert held == [share if searches_on == "cuda" else 0.0]
