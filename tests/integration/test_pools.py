"""On a real Ray node with a label: roles sit in their pool or say which is missing; the doctor examines the node."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from cluster.node_checks import examine_nodes
from cluster.roles import place
from r4t.config import Config, parse_config
from r4t.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _spot_node() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=2,
        labels={"pool": "spot"},
        include_dashboard=False,
        object_store_memory=1 << 27,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


def in_pools(rollout: str | None, learner: str | None, timeout: float = 2) -> Config:
    return parse_config(
        {
            "rollout": {"cpus": 0.5, "pool": rollout},
            "learner": {"cpus": 0.25, "pool": learner},
            "cluster": {"placement_timeout": timeout},
        }
    )


def test_roles_sit_on_nodes_of_their_pool() -> None:
    placement = place(in_pools("spot", None))
    assert [seat.pool for seat in placement.seats] == ["spot", None, None, None]
    placement.release()


def test_a_pool_without_nodes_is_named_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(UserError) as raised:
        place(in_pools("spot", "steady", timeout=300))
    assert time.monotonic() - began < 60
    assert "bundle 1 (learner) finds no 0.25 CPUs on a node labelled pool=steady; no node has that label" in str(
        raised.value
    )
    assert "labelled pool=steady" in str(raised.value).splitlines()[-1]


def test_what_others_hold_is_waited_for_and_then_named_with_the_smallest_change() -> None:
    half = {"rollout": {"cpus": 0.5}, "learner": {"cpus": 0.25, "ranks": 1}, "scorer": {"cpus": 0.25}}
    other = place(parse_config(half))
    with pytest.raises(UserError) as raised:
        place(in_pools("spot", None))
    said = str(raised.value)
    for fragment in (
        "it needs 1.25 CPUs, and free are 1 CPU on 1 node",
        "  0  rollout: 0.5 CPUs, on nodes labelled pool=spot",
        "--set learner.ranks=1 (now 2)",
        "waited 2 s (cluster.placement_timeout)",
    ):
        assert fragment in said
    key, value = re.findall(r"--set (\S+)=(\S+) ", said)[0]
    section, _, name = key.partition(".")
    raw = in_pools("spot", None).model_dump(mode="json")
    raw[section][name] = type(raw[section][name])(value)
    place(parse_config(raw)).release()  # the change that was named does fit beside the other
    other.release()


def test_every_node_is_asked_for_its_versions_and_its_storage(tmp_path: Path) -> None:
    assert examine_nodes(tmp_path / "runs") == []
    assert list((tmp_path / "runs").iterdir()) == []
