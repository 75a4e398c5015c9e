"""What several files of tests start or make once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_fixtures import exported, opened
from small_run import settings

from cluster.session import session
from r4t.serving.version import Version
from tests.integration.rl_fixtures import configuration, make_policy


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with session(configuration(), "local"):
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """For the training of retrievers."""
    with session(settings()):
        yield


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported retriever, its run beside it in `run`. Tests that change it take a copy."""
    return exported(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def version(folder: Path) -> Version:
    return opened(folder)
