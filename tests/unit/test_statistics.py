"""Bootstrap and Holm's correction, against formulas, a slow loop and known answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.evaluation.statistics import difference, holm, mean, resampled_means, share

RNG = np.random.default_rng(7)


def test_one_seed_is_the_ordinary_bootstrap_over_queries() -> None:
    values = RNG.normal(2.0, 3.0, size=(1, 400))
    found = mean(values)
    assert found.value == pytest.approx(values.mean())
    assert found.stderr == pytest.approx(values.std() / 20, rel=0.03)
    assert (found.low, found.high) == pytest.approx(
        values.mean() + 1.96 * values.std() / 20 * np.array([-1, 1]), rel=0.03
    )
    assert (found.queries, found.seeds) == (400, 1)


def test_seeds_and_queries_both_add_to_the_error() -> None:
    seeds, queries = RNG.normal(0, 1, size=(5, 1)), RNG.normal(0, 4, size=(1, 200))
    expected = np.sqrt(seeds.var() / 5 + queries.var() / 200)
    assert mean(seeds + queries).stderr == pytest.approx(expected, rel=0.04)
    repeated = np.repeat(queries, 5, axis=0)
    assert mean(repeated).stderr == pytest.approx(mean(queries).stderr, rel=0.03), "copies are no evidence"


def test_a_resample_is_the_mean_of_what_was_drawn() -> None:
    values = RNG.normal(size=(3, 6))
    values[1, 2] = np.nan
    rng = np.random.default_rng(11)
    by_seed, by_query = rng.multinomial(3, [1 / 3] * 3, size=4), rng.multinomial(6, [1 / 6] * 6, size=4)
    slow = [
        np.nanmean(values[np.repeat(np.arange(3), rows)][:, np.repeat(np.arange(6), columns)])
        for rows, columns in zip(by_seed, by_query, strict=True)
    ]
    np.testing.assert_allclose(resampled_means(values, seed=11, resamples=4), slow)


def test_pairing_takes_out_what_the_queries_share() -> None:
    hard = RNG.normal(0, 10, size=(2, 300))
    a, b = hard + RNG.normal(0.3, 0.5, size=hard.shape), hard + RNG.normal(0, 0.5, size=hard.shape)
    gap = difference(a, b)
    assert gap.p < 0.001
    assert gap.low > 0
    assert difference(b, a).p > 0.999
    with pytest.raises(ValueError, match="not paired"):
        difference(a, b[:1])


def test_without_a_difference_few_tests_are_significant() -> None:
    draws = [difference(*RNG.normal(size=(2, 1, 60)), seed=0).p for _ in range(200)]
    assert 2 <= sum(p < 0.05 for p in draws) <= 22


def test_a_share_is_exact_where_every_query_has_it_and_is_tested_against_its_threshold() -> None:
    whole = RNG.uniform(1, 2, size=(3, 50))
    kept = share(0.92 * whole, whole, threshold=0.9)
    assert (kept.value, kept.low, kept.high) == pytest.approx((0.92, 0.92, 0.92))
    assert kept.p < 0.001
    assert share(0.92 * whole, whole, threshold=0.95).p == 1.0
    with pytest.raises(ValueError, match="positive"):
        share(whole, -whole)


def test_missing_values_leave_both_sides() -> None:
    a, b = np.array([[1.0, np.nan, 3.0]]), np.array([[0.0, 5.0, np.nan]])
    assert difference(a, b).value == 1.0
    assert difference(a, b).queries == 1
    assert share(a, b + 1, threshold=1).value == 1.0
    with pytest.raises(ValueError, match="no value is present"):
        mean(np.full((2, 3), np.nan))


def test_equal_arguments_give_equal_numbers() -> None:
    values = RNG.normal(size=(2, 40))
    assert mean(values) == mean(values.copy())
    assert mean(values, seed=1) != mean(values)


def test_holm_by_hand() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({}) == {}


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_raw_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    named = {str(i): p for i, p in enumerate(p_values)}
    adjusted = holm(named)
    assert list(adjusted) == list(named)
    for name, p in named.items():
        assert p <= adjusted[name] <= min(1.0, len(named) * p) + 1e-12
    ranked = sorted(named, key=lambda name: named[name])
    assert [adjusted[name] for name in ranked] == sorted(adjusted.values())
