"""Token-balanced micro-batches: nothing lost, nothing over the cap, nobody waits for long."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from r4t.batch import supervised_batch
from r4t.micro_batches import split_tokens

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 5), st.integers(1, 200), st.randoms(use_true_random=False))
def test_every_sequence_runs_once_under_the_cap_on_balanced_ranks(
    lengths: list[int], ranks: int, cap: int, random: Random
) -> None:
    sizes = np.array(lengths)
    rows = np.array(random.sample(range(len(lengths)), random.randint(1, len(lengths))))
    split = split_tokens(rows, sizes, ranks=ranks, cap=cap)
    assert len(split) == ranks
    assert sorted(row for share in split for piece in share for row in piece.tolist()) == sorted(rows.tolist())
    for piece in (piece for share in split for piece in share if len(piece)):
        assert len(piece) * sizes[piece].max() <= cap or len(piece) == 1
    tokens = [sum(int(sizes[piece].sum()) for piece in share) for share in split]
    assert max(tokens) - min(tokens) <= sizes[rows].max()
    assert len({len(share) for share in split}) == 1, "as many backward passes on every rank"


@given(LENGTHS, st.integers(1, 200))
def test_two_neighbouring_micro_batches_do_not_fit_into_one(lengths: list[int], cap: int) -> None:
    (pieces,) = split_tokens(np.arange(len(lengths)), np.array(lengths), ranks=1, cap=cap)
    for left, right in pairwise(pieces):
        assert (len(left) + 1) * max(lengths[row] for row in left) > cap
        assert min(lengths[row] for row in left) >= max(lengths[row] for row in right)


def test_a_row_drawn_twice_runs_twice() -> None:
    split = split_tokens(np.array([0, 0, 1]), np.array([3, 2]), ranks=2, cap=3)
    assert sorted(row for share in split for piece in share for row in piece.tolist()) == [0, 0, 1]


def test_a_filler_is_a_short_sequence_without_loss() -> None:
    filler = supervised_batch([[1, 2, 3], [4]], [[5, 6], [7]], pad_id=0).filler()
    assert filler.tokens.tolist() == [[4, 7]]
    assert filler.mask.tolist() == [[False]]
