"""What the tests on several nodes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from network_nodes import Network, why_not


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """A head without CPUs and no workers yet."""
    if missing := why_not():
        pytest.skip(missing)
    made = Network()
    try:
        yield made
    finally:
        made.close()
