"""An index in parts, and one that items are added to and removed from, against one made anew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.catalog.index import ExactIndex, ShardedIndex
from r4t.catalog.index.sharded import split
from r4t.errors import UserError
from r4t.types import Floats


def repeated(rng: np.random.Generator, rows: int, dim: int = 8) -> Floats:
    """Unit rows, many of them equal."""
    vectors = rng.standard_normal((max(1, rows // 3), dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[rng.integers(len(vectors), size=rows)]


@settings(max_examples=60)
@given(rows=st.integers(1, 120), shards=st.integers(1, 7), n=st.integers(1, 40), seed=st.integers(0, 10_000))
def test_shards_find_bit_for_bit_what_one_index_finds(rows: int, shards: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, queries = repeated(rng, rows), repeated(rng, 20)
    whole = ExactIndex(vectors).search(queries, n)
    parts = ShardedIndex.of(vectors, min(shards, rows))
    assert parts.size == rows
    for found, expected in zip(parts.search(queries, n), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_more_shards_than_items_are_refused() -> None:
    assert split(7, 3) == [(0, 2), (2, 4), (4, 7)]
    with pytest.raises(UserError, match=r"index\.shards = 4 for 3 items"):
        split(3, 4)


@settings(max_examples=60)
@given(
    rows=st.integers(1, 60),
    changes=st.lists(st.tuples(st.booleans(), st.integers(1, 20)), min_size=1, max_size=5),
    n=st.integers(1, 30),
    seed=st.integers(0, 10_000),
)
def test_a_changed_index_equals_one_made_anew(rows: int, changes: list[tuple[bool, int]], n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, queries = repeated(rng, rows), repeated(rng, 20)
    index, live = ExactIndex(vectors), np.arange(rows)
    for adds, size in changes:
        if adds:
            more = repeated(rng, size)
            added = index.add(more)
            assert added.tolist() == list(range(len(vectors), len(vectors) + size))
            vectors, live = np.concatenate([vectors, more]), np.concatenate([live, added])
        else:
            gone = rng.choice(live, min(size, len(live) - 1), replace=False)
            index.remove(gone)
            live = np.setdiff1d(live, gone)
    assert index.size == len(live)
    scores, found = index.search(queries, n)
    expected_scores, places = ExactIndex(vectors[live]).search(queries, n)
    np.testing.assert_array_equal(found, live[places])
    np.testing.assert_array_equal(scores, expected_scores)


def test_new_items_may_be_larger_than_the_old_ones() -> None:
    index = ExactIndex(np.array([[0.01, 0.0033], [0.01, 0.0032], [0.01, 0.0031]], np.float32))
    index.add(np.array([[5.0, 0.0], [0.0, 7.0]], np.float32))
    assert index.search(np.array([[1, 1], [1, 0]], np.float32), 2)[1].tolist() == [[4, 3], [3, 0]]


def test_a_row_without_an_item_cannot_be_removed() -> None:
    index = ExactIndex(np.eye(4, dtype=np.float32))
    index.remove(np.array([2]))
    for rows in ([2], [4], [-1]):
        with pytest.raises(ValueError, match="1 rows hold no item"):
            index.remove(np.array([0, *rows]))
    assert index.size == 3, "nothing is removed by a call that fails"
    index.remove(np.array([0, 1, 3]))
    assert index.search(np.eye(4, dtype=np.float32), 2)[1].shape == (4, 0)


def test_new_items_of_another_width_are_refused() -> None:
    with pytest.raises(UserError, match="3 dimensions, the index 4"):
        ExactIndex(np.eye(4, dtype=np.float32)).add(np.eye(3, dtype=np.float32))
