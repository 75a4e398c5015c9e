"""On a real Ray node with a label: roles sit in their pool or say which is missing; the doctor examines the node."""

from __future__ import annotations

import logging
import re
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


def in_pools(rollout: str | None, learner: str | None) -> Config:
    return parse_config(
        {
            "rollout": {"cpus": 0.5, "pool": rollout},
            "learner": {"cpus": 0.25, "pool": learner},
            "cluster": {"placement_timeout": 2},
        }
    )


def test_roles_sit_on_nodes_of_their_pool() -> None:
    placement = place(in_pools("spot", None))
    assert [seat.pool for seat in placement.seats] == ["spot", None, None, None]
    placement.release()


def test_a_pool_without_nodes_is_named() -> None:
    with pytest.raises(UserError, match=re.escape("on nodes labelled pool=spot, pool=steady")):
        place(in_pools("spot", "steady"))


def test_every_node_is_asked_for_its_versions_and_its_storage(tmp_path: Path) -> None:
    assert examine_nodes(tmp_path / "runs") == []
    assert list((tmp_path / "runs").iterdir()) == []
