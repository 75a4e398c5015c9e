"""The reward as training sees it: schedules and one scale per group."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.config import Objective
from r4t.objective.training import scheduled_weights, training_rewards
from r4t.types import Fanout, ScoredBatch

PLAIN = Objective()
WEIGHTS = {"diversity": 0.3, "content_alignment": 0.7}


def scored(seed: int, size: int = 8, k: int = 3, invalid: tuple[int, ...] = ()) -> ScoredBatch:
    rng = np.random.default_rng(seed)
    terms = {
        name: rng.normal(size=size).astype(np.float32) * scale
        for name, scale in (("diversity", 5.0), ("content_alignment", 0.1))
    }
    credits = {name: rng.normal(size=(size, k)).astype(np.float32) for name in terms}
    rewards = sum(WEIGHTS[name] * terms[name] for name in terms).astype(np.float32)
    credit = sum(WEIGHTS[name] * credits[name] for name in credits).astype(np.float32)
    for row in invalid:
        rewards[row], credit[row] = PLAIN.invalid_reward, 0.0
        for name in terms:
            terms[name][row], credits[name][row] = np.nan, 0.0
    return ScoredBatch(
        fanouts=tuple(Fanout(subqueries=("a",) * k, valid=i not in invalid) for i in range(size)),
        rewards=rewards,
        terms=terms,
        items=np.zeros((size, k, 1), dtype=np.int64),
        row_credit=credit,
        cosine=np.zeros(size, dtype=np.float32),
        credits=credits,
    )


def test_without_schedule_or_scale_nothing_changes() -> None:
    batch = scored(0)
    rewards, credit = training_rewards(batch, PLAIN, [0, 5])
    assert rewards is batch.rewards
    assert credit is batch.row_credit


def test_a_schedule_runs_in_straight_lines_and_is_flat_outside() -> None:
    objective = Objective(schedule={"diversity": ((10, 0.0), (20, 1.0))})
    for version, factor in ((0, 0.0), (10, 0.0), (15, 0.5), (20, 1.0), (99, 1.0)):
        assert scheduled_weights(objective, version)["diversity"] == pytest.approx(0.3 * factor)
        assert scheduled_weights(objective, version)["content_alignment"] == pytest.approx(0.7)


@given(st.integers(0, 2**31))
@settings(max_examples=20)
def test_every_group_is_weighed_as_its_own_policy_version(seed: int) -> None:
    objective = Objective(schedule={"diversity": ((0, 0.0), (10, 1.0))})
    batch = scored(seed, invalid=(2,))
    rewards, credit = training_rewards(batch, objective, [0, 10])
    assert rewards[[0, 1, 3]] == pytest.approx(0.7 * batch.terms["content_alignment"][[0, 1, 3]], abs=1e-5)
    assert rewards[4:] == pytest.approx(batch.rewards[4:], abs=1e-5)
    assert credit[4:] == pytest.approx(batch.row_credit[4:], abs=1e-5)
    assert rewards[2] == PLAIN.invalid_reward


@given(st.integers(0, 2**31))
@settings(max_examples=20)
def test_at_one_scale_terms_count_by_their_weights_alone(seed: int) -> None:
    objective = Objective(normalise="group")
    batch = scored(seed, invalid=(1, 6))
    rewards, _ = training_rewards(batch, objective, [0, 0])
    for group in (slice(0, 4), slice(4, 8)):
        valid = ~np.isnan(batch.terms["diversity"][group])
        expected = np.zeros(valid.sum())
        for name, weight in WEIGHTS.items():
            values = batch.terms[name][group][valid].astype(np.float64)
            expected += weight * (values - values.mean()) / values.std()
        assert rewards[group][valid] == pytest.approx(expected, abs=1e-3)
        assert (rewards[group][~valid] < rewards[group][valid].min()).all()


def test_a_group_without_a_valid_answer_does_not_end_the_others() -> None:
    batch = scored(4, invalid=(0, 1, 2, 3))
    rewards, credit = training_rewards(batch, Objective(schedule={"diversity": ((0, 0.0), (10, 1.0))}), [0, 0])
    assert rewards[:4].tolist() == [PLAIN.invalid_reward] * 4
    assert (credit[:4] == 0).all()
    assert rewards[4:] == pytest.approx(0.7 * batch.terms["content_alignment"][4:], abs=1e-5)


def test_an_invalid_answer_is_as_far_below_its_own_group_as_that_is_wide_and_one_more() -> None:
    batch = scored(5, invalid=(1, 6))
    rewards, _ = training_rewards(batch, Objective(normalise="group"), [0, 0])
    for own, invalid in (([0, 2, 3], 1), ([4, 5, 7], 6)):
        assert rewards[invalid] == pytest.approx(rewards[own].min() - np.ptp(rewards[own]) - 1.0, abs=1e-5)


def test_a_term_without_spread_does_not_blow_up() -> None:
    batch = scored(1)
    batch.terms["diversity"][:] = np.linspace(0, 1e-9, 8)  # rounding, not a difference
    rewards, credit = training_rewards(batch, Objective(normalise="group"), [0, 0])
    assert np.isfinite(rewards).all()
    assert np.isfinite(credit).all()
    assert np.abs(rewards).max() < 2
    alone = batch.terms["content_alignment"].reshape(2, 4).std(axis=1).repeat(4)[:, None]
    assert credit == pytest.approx(0.7 * batch.credits["content_alignment"] / alone, rel=1e-4)
