"""What the tests of the reinforcement-learning engine start once a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.session import session
from tests.integration.rl_fixtures import configuration, make_policy


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with session(configuration(), "local"):
        yield


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("policy"))
