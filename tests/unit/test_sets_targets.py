import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r4t.errors import UserError
from r4t.sets import check_rows, compose_slots, keep_rows


def test_c30_twelve_rows_are_ten_results_and_two_next_best_of_different_subqueries():
    slots = compose_slots(10, 2, 12, np.random.default_rng(0))
    assert slots[:10].tolist() == [[i, 0] for i in range(10)]
    fillers = slots[10:]
    assert fillers[:, 1].tolist() == [1, 1]
    assert fillers[0, 0] != fillers[1, 0]


def test_c30_fillers_differ_from_draw_to_draw():
    draws = {tuple(compose_slots(10, 2, 12, np.random.default_rng(seed))[10:, 0]) for seed in range(50)}
    assert len(draws) > 30


def test_c30_without_next_results_two_subqueries_are_repeated():
    slots = compose_slots(10, 1, 12, np.random.default_rng(0))
    assert (slots[:, 1] == 0).all()
    assert len(np.unique(slots[:, 0])) == 10


@given(st.integers(1, 15), st.integers(1, 4), st.integers(1, 20), st.integers(0, 1000))
def test_c30_fanouts_of_any_length_fill_every_row(written: int, depth: int, rows: int, seed: int):
    slots = compose_slots(written, depth, rows, np.random.default_rng(seed))
    assert slots.shape == (rows, 2)
    assert slots[:, 0].max() < written
    assert slots[:, 1].max() < depth
    used = np.bincount(slots[:, 0], minlength=written)
    assert used.max() - used.min() <= 1  # no sub-query stands for more than its share
    pairs = {tuple(slot) for slot in slots}
    assert len(pairs) == min(rows, written * depth)  # nothing is repeated while something new is left


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
