import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r4t.errors import UserError
from r4t.sets import check_rows, compose_rows, filler_order, keep_rows


def found(batch: int, k: int, depth: int) -> np.ndarray:
    """[B, k, n] items that tell where they were found: 100 x sub-query + rank."""
    return np.broadcast_to(100 * np.arange(k)[:, None] + np.arange(depth), (batch, k, depth))


def orders(batch: int, k: int, seed: int = 0) -> np.ndarray:
    return filler_order(seed, np.zeros(batch, np.int64), np.arange(batch), k)


def test_c30_twelve_rows_are_ten_results_and_two_next_best_of_different_subqueries():
    rows = compose_rows(found(50, 10, 3), orders(50, 10), 12)
    assert (rows[:, :10] == 100 * np.arange(10)).all()
    assert (rows[:, 10:] % 100 == 1).all()
    assert (rows[:, 10] != rows[:, 11]).all()


def test_c30_without_next_results_two_subqueries_are_repeated():
    rows = compose_rows(found(50, 10, 1), orders(50, 10), 12)
    assert all(len(np.unique(row)) == 10 for row in rows)


@given(st.integers(1, 12), st.integers(1, 3), st.integers(0, 12), st.integers(0, 1000))
def test_c30_composition_equals_the_rule_spelled_out(k: int, depth: int, fillers: int, seed: int):
    rows = k + min(fillers, k)
    order = orders(3, k, seed)
    for row, own in zip(compose_rows(found(3, k, depth), order, rows), order, strict=True):
        expected = [100 * i for i in range(k)] + [100 * i + (1 if depth > 1 else 0) for i in own[: rows - k]]
        assert row.tolist() == expected


@given(st.integers(0, 2**31), st.integers(1, 15))
def test_c30_orders_are_permutations(seed: int, k: int):
    assert (np.sort(orders(20, k, seed), axis=1) == np.arange(k)).all()


def test_c30_every_subquery_fills_as_often_as_another():
    query, sample = np.repeat(np.arange(300), 64), np.tile(np.arange(64), 300)
    first_two = filler_order(0, query, sample, 10)[:, :2]
    share = np.bincount(first_two.ravel(), minlength=10) / first_two.size
    assert np.abs(share - 0.1).max() < 0.006  # 4 standard errors
    pairs = np.unique(first_two[:, 0] * 10 + first_two[:, 1], return_counts=True)[1]
    assert len(pairs) == 90
    assert np.abs(pairs / len(query) - 1 / 90).max() < 0.004


def test_c30_orders_depend_on_seed_query_and_sample_alone():
    query, sample = np.repeat(np.arange(40), 40), np.tile(np.arange(40), 40)
    whole = filler_order(0, query, sample, 16)
    assert np.array_equal(filler_order(0, query[7:9], sample[7:9], 16), whole[7:9])
    assert len(np.unique(whole, axis=0)) == len(whole)  # of 16! orders: query 3, sample 0 is not query 0, sample 3
    assert (filler_order(1, query, sample, 16) != whole).any(axis=1).mean() > 0.99


@pytest.mark.parametrize("rows", [9, 21])
def test_rows_that_do_not_fit_k_are_refused_with_the_range(rows: int):
    with pytest.raises(UserError, match="between 10 and 20"):
        check_rows(rows, 10)
    check_rows(10, 10)
    check_rows(12, 10)


def test_c49_twelve_rows_become_ten_and_repeats_go_first():
    nearest = np.array([[5, 5, 1, 2, 3, 4, 6, 6, 7, 8, 9, 10]])
    assert keep_rows(nearest, 10).tolist() == [[0, 2, 3, 4, 5, 6, 8, 9, 10, 11]]


def test_c49_dropped_rows_refill_when_too_few_differ():
    nearest = np.array([[1, 1, 1, 2], [1, 2, 3, 4]])
    assert keep_rows(nearest, 3).tolist() == [[0, 3, 1], [0, 1, 2]]


def test_c49_too_few_rows_is_an_error():
    with pytest.raises(ValueError, match="keeping 3 rows"):
        keep_rows(np.zeros((2, 2), np.int64), 3)


@given(st.lists(st.integers(0, 6), min_size=5, max_size=9), st.integers(1, 5))
def test_c49_equals_the_rule_spelled_out(nearest: list[int], k: int):
    seen: set[int] = set()
    fresh, dropped = [], []
    for row, item in enumerate(nearest):
        (dropped if item in seen else fresh).append(row)
        seen.add(item)
    assert keep_rows(np.array([nearest]), k)[0].tolist() == (fresh + dropped)[:k]
