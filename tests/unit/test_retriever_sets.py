"""From rows to sets: the choice of items, the index behind it, and the control of spread."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r4t.catalog.index import ExactIndex
from r4t.errors import UserError
from r4t.retriever import ItemIndex, choose
from r4t.retriever.search import search_sets
from r4t.retriever.spread import spread_rows
from r4t.sets.decode import keep_rows
from r4t.types import Floats

ENCODER = "f" * 64


def unit(*shape: int, seed: int = 0) -> Floats:
    rows = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def index(vectors: Floats) -> ItemIndex:
    return ItemIndex.of_vectors(vectors, ENCODER, [f"item {row}" for row in range(len(vectors))])


found_lists = st.lists(st.lists(st.integers(0, 12), max_size=6, unique=True), max_size=6)


@given(found_lists, st.integers(1, 12))
def test_a_set_holds_different_items_and_as_many_as_there_are(found: list[list[int]], k: int) -> None:
    chosen = choose(found, k)
    items = [item for item, _, _ in chosen]
    assert len(items) == len(set(items)) == min(k, len({item for row in found for item in row}))
    assert all(found[row][rank] == item for item, row, rank in chosen)
    places = [(rank, row) for _, row, rank in chosen]
    assert places == sorted(places)  # no row gives its second item before every row has given its first


@given(st.lists(st.integers(0, 30), min_size=12, max_size=12), st.integers(1, 12))
def test_nearest_items_come_as_the_evaluation_keeps_them(nearest: list[int], k: int) -> None:
    kept = np.array(nearest)[keep_rows(np.array([nearest]), k)[0]].tolist()
    distinct = list(dict.fromkeys(kept))
    assert [item for item, _, _ in choose([[item] for item in nearest], k)][: len(distinct)] == distinct


def test_sets_against_brute_force() -> None:
    vectors, rows = unit(40, 8), unit(5, 4, 8, seed=1)
    rows[2] = rows[2, :1]  # one query whose rows all agree, so that it must search deeper
    sets = search_sets(index(vectors), rows, k=6)
    for its, found in zip(rows, sets, strict=True):
        order = np.argsort(-(its @ vectors.T), axis=1)
        expected = choose(order.tolist(), 6)
        assert [item.item_id for item in found.items] == [f"item {item}" for item, _, _ in expected]
        assert [item.row for item in found.items] == [row for _, row, _ in expected]
        scores = [float(its[row] @ vectors[item]) for item, row, _ in expected]
        assert [item.score for item in found.items] == pytest.approx(scores, abs=1e-5)


def test_fewer_items_than_wanted_are_all_given() -> None:
    sets = search_sets(index(unit(3, 8)), unit(2, 4, 8, seed=1), k=10)
    assert [sorted(item.item_id for item in found.items) for found in sets] == [["item 0", "item 1", "item 2"]] * 2


@pytest.mark.parametrize("kind", ["flat", "l2", "hnsw", "ids", "exact"])
def test_any_index_gives_the_same_sets(kind: str) -> None:
    vectors, rows = unit(60, 8), unit(3, 4, 8, seed=1)
    made = {
        "flat": lambda: faiss.IndexFlatIP(8),
        "l2": lambda: faiss.IndexFlatL2(8),
        "hnsw": lambda: faiss.IndexHNSWFlat(8, 16, faiss.METRIC_INNER_PRODUCT),
        "ids": lambda: faiss.IndexIDMap(faiss.IndexFlatIP(8)),
        "exact": lambda: ExactIndex(vectors),
    }[kind]()
    names = [str(7 * row) for row in range(60)]
    if kind == "ids":
        made.add_with_ids(vectors, np.arange(60) * 7)
    elif kind != "exact":
        made.add(vectors)
    ours = ItemIndex(index=made, encoder=ENCODER, item_ids=None if kind == "ids" else names)
    expected = search_sets(ItemIndex.exact(vectors, ENCODER, names), rows, 5)
    for found, other in zip(search_sets(ours, rows, 5), expected, strict=True):
        assert [(item.item_id, item.row) for item in found.items] == [(item.item_id, item.row) for item in other.items]
        assert [i.score for i in found.items] == pytest.approx([i.score for i in other.items], abs=1e-5)


def test_an_index_must_be_of_the_same_encoder_and_width() -> None:
    ours = index(unit(5, 8))
    ours.check(ENCODER, 8)
    with pytest.raises(UserError, match=r"another encoder \(hash ffffffffffff\) than the retriever's \(000000000000\)"):
        ours.check("0" * 64, 8)
    with pytest.raises(UserError, match="width 8, the retriever's have 16"):
        ours.check(ENCODER, 16)
    with pytest.raises(UserError, match="holds 5 items and item_ids 4"):
        ItemIndex.of_vectors(unit(5, 8), ENCODER, list("abcd"))


def test_spread_goes_from_the_query_to_far_apart() -> None:
    rows, queries = unit(3, 6, 8), unit(3, 8, seed=1)
    np.testing.assert_allclose(spread_rows(rows, queries, 0.0), np.repeat(queries[:, None], 6, axis=1), atol=1e-6)
    np.testing.assert_allclose(spread_rows(3 * rows, queries, 1.0), rows, atol=1e-6)
    for near in (0.9999, 1.0001):
        np.testing.assert_allclose(spread_rows(rows, queries, near), rows, atol=1e-3)
    steps = [spread_rows(rows, queries, spread) for spread in (0, 0.3, 0.6, 0.9, 1)]
    to_query = [float(np.einsum("bld,bd->", moved, queries)) for moved in steps]
    assert to_query == sorted(to_query, reverse=True)
    among = [
        float(np.einsum("bld,bmd->", moved, moved)) for moved in (spread_rows(rows, queries, s) for s in (1, 1.5, 3))
    ]
    assert among == sorted(among, reverse=True)
    assert among[0] > among[-1] + 0.1
    np.testing.assert_allclose(np.linalg.norm(spread_rows(rows, queries, 1.5), axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize("spread", [-0.1, float("nan"), float("inf")])
def test_a_spread_that_means_nothing_is_refused(spread: float) -> None:
    with pytest.raises(UserError, match="spread is"):
        spread_rows(unit(1, 2, 8), unit(1, 8), spread)
