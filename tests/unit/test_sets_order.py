"""Orders without memory: bijections, and random enough."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.sets.order import epoch_order, row_order


def whole(n: int, seed: int, epoch: int) -> np.ndarray:
    return epoch_order(np.arange(n), n, seed, np.full(n, epoch))


@settings(max_examples=50)
@given(st.integers(1, 3000), st.integers(0, 2**64), st.integers(0, 2**31))
def test_an_epoch_holds_every_element_once(n: int, seed: int, epoch: int):
    assert np.array_equal(np.sort(whole(n, seed, epoch)), np.arange(n))


def test_an_epoch_of_the_papers_size_holds_every_set_once():
    n = 4_500_000
    seen = np.zeros(n, dtype=bool)
    for start in range(0, n, 50_000):
        places = np.arange(start, start + 50_000)
        seen[epoch_order(places, n, 7, np.full(len(places), 3))] = True
    assert seen.all()


@settings(max_examples=50)
@given(st.integers(1, 500), st.integers(0, 9), st.data())
def test_each_place_is_computed_alone(n: int, seed: int, data: st.DataObject):
    """Any places of any epochs in one call give what each gives alone."""
    asked = data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, 5)), min_size=1, max_size=20))
    places, epochs = np.array(asked).T
    together = epoch_order(places, n, seed, epochs)
    assert together.tolist() == [int(whole(n, seed, epoch)[place]) for place, epoch in asked]
    rows = row_order(together, 5, seed, epochs)
    alone = [row_order(together[i : i + 1], 5, seed, epochs[i : i + 1])[0] for i in range(len(asked))]
    assert np.array_equal(rows, alone)


@pytest.mark.parametrize("n", [2, 7, 12])
def test_pairs_of_neighbours_are_uniform_over_epochs(n: int):
    """The element at a place, and the pair at two places, are uniform: chi-square within five standard deviations."""
    epochs = 20_000
    orders = np.stack([epoch_order(np.full(epochs, p), n, 1, np.arange(epochs)) for p in range(n)], axis=1)
    for place in range(n):
        assert _uniform(np.bincount(orders[:, place], minlength=n))
    for one, two in pairwise(range(n)):
        pairs = np.bincount(orders[:, one] * n + orders[:, two], minlength=n * n)
        assert _uniform(pairs[[a * n + b for a in range(n) for b in range(n) if a != b]])


def test_orders_of_seeds_and_epochs_have_nothing_in_common():
    """Places at which two of them agree: 1 is expected of permutations, whatever their length."""
    orders = [whole(1000, seed, epoch) for seed in range(4) for epoch in range(4)]
    agreeing = [int((a == b).sum()) for i, a in enumerate(orders) for b in orders[:i]]
    assert np.mean(agreeing) < 2
    assert max(agreeing) < 9
    moves = np.diff(orders[0])
    assert abs(np.corrcoef(orders[0][:-1], orders[0][1:])[0, 1]) < 0.1
    assert len(np.unique(moves)) > 500


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(0, 99), st.integers(0, 99))
def test_row_orders_are_permutations(width: int, seed: int, epoch: int):
    rows = row_order(np.arange(30), width, seed, np.full(30, epoch))
    assert (np.sort(rows, axis=1) == np.arange(width)).all()


def test_c43_every_row_visits_every_place_equally():
    n, width = 40_000, 4
    rows = row_order(np.arange(n), width, 0, np.zeros(n, np.int64))
    counts = np.unique(rows @ (width ** np.arange(width)), return_counts=True)[1]
    assert len(counts) == 24  # all orders of four rows occur, equally often
    assert _uniform(counts)


def test_an_order_of_nothing_is_refused():
    with pytest.raises(ValueError, match="1 to 2"):
        epoch_order(np.zeros(0, np.int64), 0, 0, np.zeros(0, np.int64))


def _uniform(counts: np.ndarray) -> bool:
    expected = counts.sum() / len(counts)
    free = max(len(counts) - 1, 1)
    return bool(np.square(counts - expected).sum() / expected < free + 5 * np.sqrt(2 * free))
