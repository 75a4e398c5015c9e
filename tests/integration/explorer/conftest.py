"""A server with hostile names and a run page, and a real browser, once a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import launched, make_served, served
from playwright.sync_api import Browser
from serving_fixtures import opened

from r4t.serving.version import Version


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_served(tmp_path_factory.mktemp("explorer"))


@pytest.fixture(scope="module")
def version(folder: Path) -> Version:
    return opened(folder / "exported")


@pytest.fixture(scope="module")
def url(folder: Path, version: Version) -> Iterator[str]:
    with served(folder, version) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not longer than a module: while it runs, no other event loop can."""
    with launched() as found:
        yield found
