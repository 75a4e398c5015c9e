"""Metrics against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.evaluation import metrics


def _vendi(rows: np.ndarray) -> float:
    """Friedman & Dieng's formula, written out."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    eigenvalues = np.linalg.eigvalsh((unit @ unit.T).astype(np.float64) / len(rows))
    return float(np.exp(-sum(v * np.log(v) for v in eigenvalues if v > 1e-12)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 6), st.integers(1, 4))
@settings(max_examples=60)
def test_c52_recall_and_hit_equal_brute_force(seed: int, batch: int, k: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    items = rng.integers(0, 30, (batch, k, n))
    references = [tuple(rng.choice(30, rng.integers(1, 8), replace=False).tolist()) for _ in range(batch)]
    weights = rng.random(30).astype(np.float32) + 0.1
    plain, weighted = metrics.recall(items, references), metrics.recall(items, references, weights)
    hits, sizes = metrics.hit(items, references), metrics.pool_size(items)
    for b, reference in enumerate(references):
        pool = {int(item) for item in items[b].reshape(-1)}
        found = [item for item in reference if item in pool]
        assert plain[b] == pytest.approx(len(found) / len(reference), abs=1e-6)
        assert weighted[b] == pytest.approx(weights[found].sum() / weights[list(reference)].sum(), abs=1e-5)
        assert hits[b] == (1.0 if found else 0.0)
        assert sizes[b] == pytest.approx(len(pool))


def test_c52_recall_at_5k_pool_of_500_by_10_on_toy_data() -> None:
    items = np.arange(5000).reshape(1, 10, 500)
    assert metrics.recall(items, [(0, 4999, 5000, 6000)])[0] == pytest.approx(0.5)
    assert metrics.hit(items, [(9000,)])[0] == 0.0
    assert metrics.random_recall(10, 500, 142_472) == pytest.approx(0.0351, abs=1e-4)
    assert metrics.random_recall(10, 500, 100) == 1.0


def test_c52_random_pools_recall_the_floor() -> None:
    rng = np.random.default_rng(0)
    items = np.stack([rng.choice(200, 40, replace=False).reshape(10, 4) for _ in range(500)])
    references = [tuple(rng.choice(200, 6, replace=False).tolist()) for _ in range(500)]
    floor = metrics.random_recall(10, 4, 200)
    assert metrics.recall(items, references).mean() == pytest.approx(floor, abs=0.02)


def test_random_pools_hit_as_often_as_expected() -> None:
    rng = np.random.default_rng(1)
    references = [tuple(rng.choice(60, size, replace=False).tolist()) for size in (1, 3, 6)]
    hits = np.mean(
        [[bool({*rng.choice(60, 8, replace=False)} & set(wanted)) for wanted in references] for _ in range(4000)]
    )
    assert metrics.random_hit(4, 2, 60, references) == pytest.approx(hits, abs=0.01)
    assert metrics.random_hit(10, 500, 142_472, [tuple(range(8))]) == pytest.approx(0.249, abs=1e-3)  # App. B.2's pool


def test_the_papers_depth_is_the_same_share_of_every_database() -> None:
    assert metrics.paper_depth(10, 142_472) == 500
    assert metrics.paper_depth(10, 19_608) == 69
    assert metrics.random_recall(10, 69, 19_608) == pytest.approx(metrics.random_recall(10, 500, 142_472), rel=0.01)
    assert metrics.paper_depth(10, 50) == 1


def test_shuffling_queries_lowers_recall_only_where_the_pool_answers_the_query() -> None:
    references = [(i, i + 100) for i in range(20)]
    answering = np.array([[[i], [i + 100]] for i in range(20)])
    assert metrics.recall(answering, references).mean() == 1.0
    assert metrics.shuffled_recall(answering, references, None, seed=0).mean() == 0.0
    popular = np.tile(np.array([[[0], [100]]]), (20, 1, 1))
    own = metrics.recall(popular, references).mean()
    assert metrics.shuffled_recall(popular, references, None, seed=3).mean() == pytest.approx(own)


def test_shuffled_recall_never_uses_a_querys_own_references() -> None:
    references = [(i,) for i in range(7)]
    items = np.arange(7).reshape(7, 1, 1)
    for seed in range(50):
        assert metrics.shuffled_recall(items, references, None, seed).max() == 0.0
    with pytest.raises(ValueError, match="two queries"):
        metrics.shuffled_recall(items[:1], references[:1], None, 0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 8))
@settings(max_examples=50)
def test_distinct_items_equal_brute_force(seed: int, batch: int, k: int) -> None:
    items = np.random.default_rng(seed).integers(0, 6, (batch, k))
    expected = [len(set(row.tolist())) / k for row in items]
    np.testing.assert_allclose(metrics.distinct_share(items), expected, rtol=1e-6)
    assert metrics.distinct_overall(items) == len(set(items.reshape(-1).tolist()))


def test_c53_vendi_over_five_runs_in_both_readings() -> None:
    rng = np.random.default_rng(1)
    runs = rng.normal(size=(5, 3, 10, 16)).astype(np.float32)
    runs /= np.linalg.norm(runs, axis=-1, keepdims=True)
    means, rows = metrics.vendi_over_runs(runs)
    for b in range(3):
        assert means[b] == pytest.approx(_vendi(runs[:, b].mean(axis=1)) / 5, rel=1e-4)
        assert rows[b] == pytest.approx(_vendi(runs[:, b].reshape(50, 16)) / 50, rel=1e-4)


def test_c53_equal_pairwise_cosine_gives_the_published_values() -> None:
    """Five run means at pairwise cosine c: 48.4, 38.8, 29.5, 25.0 percent for c = .7, .8, .9, .95."""
    for cosine, expected in ((0.7, 48.4), (0.8, 38.8), (0.9, 29.5), (0.95, 25.0)):
        gram = np.full((5, 5), cosine) + (1 - cosine) * np.eye(5)
        runs = np.linalg.cholesky(gram).astype(np.float32)[:, None, None, :]  # [5, 1, 1, 5]
        means, _ = metrics.vendi_over_runs(runs)
        assert 100 * means[0] == pytest.approx(expected, abs=0.06)


def test_c53_a_query_with_an_unusable_run_is_left_out() -> None:
    runs = np.ones((5, 2, 3, 4), dtype=np.float32) / 2
    runs[2, 1] = np.nan
    means, rows = metrics.vendi_over_runs(runs)
    assert means[0] == pytest.approx(0.2)
    assert np.isnan(means[1])
    assert np.isnan(rows[1])


def test_c55_summaries_state_mean_spread_error_and_count() -> None:
    values = np.array([1.0, 2.0, np.nan, 3.0, 6.0])
    cell = metrics.summarise(values)
    assert cell is not None
    assert (cell.mean, cell.n) == (3.0, 4)
    assert cell.std == pytest.approx(np.std([1, 2, 3, 6]))
    assert cell.stderr == pytest.approx(np.std([1, 2, 3, 6], ddof=1) / 2)
    assert metrics.summarise(np.array([np.nan, np.nan])) is None


def test_paired_difference_takes_the_queries_difficulty_out() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=400) * 10
    gap = metrics.paired_difference(difficulty + 0.5 + rng.normal(size=400) * 0.1, difficulty)
    assert gap is not None
    assert gap.mean == pytest.approx(0.5, abs=0.03)
    assert gap.stderr < 0.01
