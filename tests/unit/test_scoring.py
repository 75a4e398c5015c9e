"""Scores that come from several scorers become one batch again."""

from __future__ import annotations

import numpy as np

from r4t.fanout import INVALID, parse
from r4t.scoring import join_scored
from r4t.types import ScoredBatch


def part(rewards: list[float], terms: dict[str, list[float]], valid: bool = True) -> ScoredBatch:
    size = len(rewards)
    return ScoredBatch(
        fanouts=(parse('<queries>["a"]</queries>', 1) if valid else INVALID,) * size,
        rewards=np.array(rewards, "f4"),
        terms={name: np.array(values, "f4") for name, values in terms.items()},
        items=np.full((size, 1, 1), rewards[0], dtype=np.int64),
        row_credit=np.array(rewards, "f4")[:, None],
    )


def test_parts_join_in_order_and_missing_terms_are_nan() -> None:
    joined = join_scored(
        [part([1, 2], {"coverage": [0.1, 0.2]}), part([-1], {}, valid=False), part([3], {"coverage": [0.3]})]
    )
    assert joined.rewards.tolist() == [1, 2, -1, 3]
    assert joined.row_credit[:, 0].tolist() == [1, 2, -1, 3]
    assert joined.items[:, 0, 0].tolist() == [1, 1, -1, 3]
    assert [fanout.valid for fanout in joined.fanouts] == [True, True, False, True]
    np.testing.assert_array_equal(joined.terms["coverage"], np.array([0.1, 0.2, np.nan, 0.3], "f4"))
