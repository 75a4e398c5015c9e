"""Exact search against brute force (paper section 1.1)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.catalog.index import ExactIndex, exact
from r4t.catalog.index.candidates import PREFIX
from r4t.catalog.index.products import FloatProducts, Int8Products
from r4t.errors import UserError
from r4t.types import Floats, Ints


def unit(rng: np.random.Generator, rows: int, dim: int) -> Floats:
    vectors = rng.standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute_force(vectors: Floats, queries: Floats, n: int) -> tuple[Floats, Ints]:
    scores = queries @ vectors.T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    return np.take_along_axis(scores, rows, axis=1), rows


def test_c03_equals_brute_force_on_1000_queries() -> None:
    rng = np.random.default_rng(0)
    vectors, queries = unit(rng, 5000, 128), unit(rng, 1000, 128)
    scores, rows = ExactIndex(vectors).search(queries, 10)
    expected_scores, expected_rows = brute_force(vectors, queries, 10)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
    assert (rows == expected_rows).mean() > 0.999  # two items may be closer than the rounding of a product
    assert rows.dtype == np.int64
    assert scores.dtype == np.float32


def test_c03_a_batch_returns_what_single_queries_return() -> None:
    rng = np.random.default_rng(1)
    index, queries = ExactIndex(unit(rng, 300, 16)), unit(rng, 64, 16)
    _, together = index.search(queries, 5)
    alone = np.concatenate([index.search(query[None], 5)[1] for query in queries])
    np.testing.assert_array_equal(together, alone)


def test_c05_top_1_and_union_are_views_of_the_top_n_search() -> None:
    rng = np.random.default_rng(2)
    index, fanout = ExactIndex(unit(rng, 500, 32)), unit(rng, 10, 32)
    _, top_1 = index.search(fanout, 1)
    _, top_20 = index.search(fanout, 20)
    np.testing.assert_array_equal(top_1[:, 0], top_20[:, 0])
    one_by_one = [set(index.search(direction[None], 20)[1][0].tolist()) for direction in fanout]
    assert set(np.unique(top_20).tolist()) == set.union(*one_by_one)


ENGINES = {"int8": lambda vectors, _: Int8Products(vectors), "float32": FloatProducts}


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=40)
@given(
    rows=st.integers(1, 3 * PREFIX),
    n=st.sampled_from([1, 2, 10, 150]),
    levels=st.sampled_from([1, 4, 100]),
    spread=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_either_engine_finds_exactly_what_float64_does(
    engine: str, rows: int, n: int, levels: int, spread: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    # Multiples of 2^-8, whose products float64 adds without any error; few levels make many equal scores.
    vectors = (rng.integers(-levels, levels + 1, (rows, 8)) * 2.0**-8 + spread).astype(np.float32)
    queries = (rng.integers(-levels, levels + 1, (7, 8)) * 2.0**-8).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "products", ENGINES[engine])
        scores, found = ExactIndex(vectors).search(queries, n)
    everything = (queries.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
    expected = np.argsort(-everything, axis=1, kind="stable")[:, :n]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(scores, np.take_along_axis(everything, expected, axis=1))


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=40)
@given(rows=st.integers(2, 200), scale=st.sampled_from([1e-6, 1.0, 1e6]), seed=st.integers(0, 10_000))
def test_products_further_apart_than_the_window_are_in_the_order_of_the_scores(
    engine: str, rows: int, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    # Many rows differ from another by a rounding or two, which products in float32 mistake for nothing, or worse.
    vectors = unit(rng, 1 + rows // 8, 5)[rng.integers(1 + rows // 8, size=rows)] * np.float32(scale)
    vectors *= 1 + rng.integers(-2, 3, vectors.shape).astype(np.float32) * np.float32(2.0**-23)
    queries = unit(rng, 9, 5)
    block, window = ENGINES[engine](vectors, torch.device("cpu")).of(queries)
    products = block(0, rows).numpy().astype(np.float64).T  # [m, rows]
    exactly = queries.astype(np.float64) @ vectors.astype(np.float64).T
    lower = products[:, :, None] + window.numpy()[:, None, None] < products[:, None, :]
    assert (exactly[:, :, None] < exactly[:, None, :])[lower].all()
    assert lower.any() or rows < 20


def test_shorter_float32_products_are_refused() -> None:
    products = FloatProducts(np.eye(3, dtype=np.float32), torch.device("cpu"))
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(RuntimeError, match="highest"):
            products.of(np.eye(3, dtype=np.float32))
    finally:
        torch.set_float32_matmul_precision("highest")


@settings(max_examples=60)
@given(
    copies=st.lists(st.integers(0, 5), min_size=1, max_size=40),
    n=st.integers(1, 50),
    seed=st.integers(0, 10_000),
)
def test_equal_items_come_in_the_order_of_their_rows(copies: list[int], n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, queries = unit(rng, 6, 8)[copies], unit(rng, 25, 8)
    scores, rows = ExactIndex(vectors).search(queries, n)
    # Summing rounded scores would hide ties, so the oracle scores each distinct vector once.
    distinct, where = np.unique(vectors, axis=0, return_inverse=True)
    oracle = (queries @ distinct.T)[:, where.reshape(-1)]
    expected = np.argsort(-oracle, axis=1, kind="stable")[:, :n]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(oracle, expected, axis=1), atol=1e-6)


def test_n_is_clipped_to_the_database_and_no_queries_give_no_rows() -> None:
    rng = np.random.default_rng(3)
    index = ExactIndex(unit(rng, 4, 8))
    scores, rows = index.search(unit(rng, 3, 8), 99)
    assert scores.shape == rows.shape == (3, 4)
    assert all(sorted(line) == [0, 1, 2, 3] for line in rows.tolist())
    assert index.search(np.zeros((0, 8), np.float32), 2)[1].shape == (0, 2)


@pytest.mark.parametrize("vectors", [np.zeros((0, 8)), np.zeros((3, 0)), np.zeros(8)])
def test_an_empty_database_is_refused(vectors: Floats) -> None:
    with pytest.raises(UserError, match=r"at least one item"):
        ExactIndex(vectors)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_item_vectors_that_are_not_finite_are_refused_with_the_fix(value: float) -> None:
    vectors = np.eye(4, dtype=np.float32)
    vectors[2, 1] = value
    with pytest.raises(UserError, match=r"1 of 4 item vectors .* row 2.*--stage prepare"):
        ExactIndex(vectors)


def test_unusable_queries_are_refused() -> None:
    index = ExactIndex(np.eye(4, dtype=np.float32))
    with pytest.raises(ValueError, match=r"\[m, 4\]"):
        index.search(np.zeros((2, 3), np.float32), 1)
    with pytest.raises(ValueError, match="NaN"):
        index.search(np.full((1, 4), np.nan, np.float32), 1)
    with pytest.raises(ValueError, match="at least 1"):
        index.search(np.eye(4, dtype=np.float32), 0)


def test_a_million_copies_of_an_item_are_one_product_and_rank_by_row() -> None:
    rng = np.random.default_rng(4)
    few = unit(rng, 3, 8)
    index = ExactIndex(np.concatenate([few[:1], np.repeat(few[1:2], 1_000_000, axis=0), few[2:]]))
    assert len(index._counts) == 3
    for own, first in ((few[0], 0), (few[1], 1), (few[2], 1_000_001)):
        _, rows = index.search(own[None], 3)
        assert rows[0, 0] == first
    _, rows = index.search(few[1:2], 5)
    np.testing.assert_array_equal(rows, [[1, 2, 3, 4, 5]])
