"""The report on a changed catalogue against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.catalog.changes import catalogue_change
from r4t.errors import UserError


@settings(max_examples=60)
@given(
    old=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    new=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    targets=st.integers(0, 15),
    seed=st.integers(0, 1000),
)
def test_counts_equal_counting_by_hand(old: list[int], new: list[int], targets: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = rng.standard_normal((10, 6)).astype(np.float32)
    asked = rng.standard_normal((targets, 6)).astype(np.float32)
    change = catalogue_change(items[old], items[new], asked)
    kept = sum(min(old.count(item), new.count(item)) for item in range(10))
    assert (change.kept, change.added, change.removed) == (kept, len(new) - kept, len(old) - kept)
    nearest = [[catalogue[int(np.argmax(items[catalogue] @ row))] for row in asked] for catalogue in (old, new)]
    assert change.moved == sum(a != b for a, b in zip(*nearest, strict=True))
    assert change.moved_share == (change.moved / targets if targets else 0.0)


def test_the_order_of_the_items_is_no_change() -> None:
    items = np.eye(5, dtype=np.float32)
    change = catalogue_change(items, items[::-1], items)
    assert (change.added, change.removed, change.moved) == (0, 0, 0)


def test_an_empty_catalogue_is_refused() -> None:
    with pytest.raises(UserError, match="at least one item"):
        catalogue_change(np.eye(3, dtype=np.float32), np.zeros((0, 3), np.float32), np.eye(3, dtype=np.float32))
