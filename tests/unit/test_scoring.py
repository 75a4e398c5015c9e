"""Scores that come from several scorers become one batch again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r4t.fanout import INVALID, parse
from r4t.scoring import join_scored, pairwise_cosine, part_of
from r4t.types import ScoredBatch


def part(rewards: list[float], terms: dict[str, list[float]], valid: bool = True) -> ScoredBatch:
    size = len(rewards)
    return ScoredBatch(
        fanouts=(parse('<queries>["a"]</queries>', 1) if valid else INVALID,) * size,
        rewards=np.array(rewards, "f4"),
        terms={name: np.array(values, "f4") for name, values in terms.items()},
        items=np.full((size, 1, 1), rewards[0], dtype=np.int64),
        row_credit=np.array(rewards, "f4")[:, None],
        cosine=np.array(rewards, "f4"),
    )


def test_parts_join_in_order_and_missing_terms_are_nan() -> None:
    joined = join_scored(
        [part([1, 2], {"coverage": [0.1, 0.2]}), part([-1], {}, valid=False), part([3], {"coverage": [0.3]})]
    )
    assert joined.rewards.tolist() == [1, 2, -1, 3]
    assert joined.row_credit[:, 0].tolist() == [1, 2, -1, 3]
    assert joined.cosine.tolist() == [1, 2, -1, 3]
    assert joined.items[:, 0, 0].tolist() == [1, 1, -1, 3]
    assert [fanout.valid for fanout in joined.fanouts] == [True, True, False, True]
    np.testing.assert_array_equal(joined.terms["coverage"], np.array([0.1, 0.2, np.nan, 0.3], "f4"))


def test_a_part_of_a_joined_batch_is_what_was_joined() -> None:
    first, second = part([1, 2], {"coverage": [0.1, 0.2]}), part([3], {"coverage": [0.3]})
    back = part_of(join_scored([first, second]), slice(2, 3))
    assert back.fanouts == second.fanouts
    for name in ("rewards", "items", "row_credit", "cosine"):
        np.testing.assert_array_equal(getattr(back, name), getattr(second, name))
    np.testing.assert_array_equal(back.terms["coverage"], second.terms["coverage"])


@given(k=st.integers(2, 8), seed=st.integers(0, 1000))
def test_pairwise_cosine_is_the_mean_over_pairs(k: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(3, k, 5)).astype("f4")
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    for own, value in zip(rows, pairwise_cosine(rows), strict=True):
        pairs = [float(own[i] @ own[j]) for i in range(k) for j in range(i)]
        assert value == pytest.approx(np.mean(pairs), abs=1e-5)


def test_one_subquery_has_no_pairs() -> None:
    assert pairwise_cosine(np.ones((2, 1, 1), "f4")).tolist() == [0, 0]
