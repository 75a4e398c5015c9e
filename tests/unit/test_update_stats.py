"""Statistics of an update: merged over ranks they are those of the whole batch, quantiles included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.grpo import LossParts, soft_grpo_loss
from r4t.update_stats import UpdateStats, histogram, merge_ranks, quantile

CAP = 2.0


def tokens(seed: int, size: int) -> tuple[LossParts, torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    old = -torch.rand(size, generator=g) * 3
    engine = old + torch.randn(size, generator=g) * 0.6
    parts = soft_grpo_loss(
        old + torch.randn(size, generator=g) * 0.1, old, torch.randn(size, generator=g), clip=0.2,
        beta_policy_old=0.05, beta_old_policy=0.05,
    )  # fmt: skip
    mask = torch.rand(size, generator=g) < 0.7
    mask[0] = True
    return parts, old, engine, mask


@given(st.integers(0, 2**31), st.lists(st.integers(20, 300), min_size=1, max_size=4))
@settings(max_examples=40)
def test_merged_ranks_report_what_numpy_finds_in_all_tokens(seed: int, sizes: list[int]) -> None:
    ranks, differences, ratios = [], [], []
    for i, size in enumerate(sizes):
        stats = UpdateStats()
        parts, old, engine, mask = tokens(seed + i, size)
        stats.observe(parts, old, engine, mask, cap=CAP)
        ranks.append(stats)
        differences.append((old - engine)[mask].numpy())
        ratios.append(parts.ratio[mask].numpy())
    merged = merge_ranks(ranks)
    difference = np.concatenate(differences)
    weight = np.exp(difference)
    assert merged["tokens"] == len(difference)
    assert merged["mismatch"] == pytest.approx(np.abs(difference).mean(), rel=1e-4)
    assert merged["mismatch_max"] == pytest.approx(np.abs(difference).max(), rel=1e-5)
    expected = np.quantile(np.abs(difference), 0.95, method="inverted_cdf")
    assert merged["mismatch_p95"] == pytest.approx(expected, rel=0.06)
    assert merged["importance"] == pytest.approx(np.minimum(weight, CAP).mean(), rel=1e-4)
    assert merged["truncated"] == pytest.approx((weight > CAP).mean(), abs=1e-6)
    assert merged["ratio"] == pytest.approx(np.concatenate(ratios).mean(), rel=1e-4)


@given(st.lists(st.floats(1e-6, 50), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_a_quantile_of_the_histogram_is_numpys(values: list[float], q: float) -> None:
    array = np.array(values, "f4")
    expected = np.quantile(array, q, method="inverted_cdf")
    assert quantile(histogram(array), q) == pytest.approx(expected, rel=0.06)


def test_the_ends_of_the_histogram() -> None:
    assert quantile(histogram(np.zeros(3, "f4")), 0.95) == 0.0
    assert quantile(histogram(np.array([1e9], "f4")), 0.95) == pytest.approx(100)
    assert quantile(histogram(np.array([], "f4")), 0.95) == 0.0


def test_a_rank_that_ran_only_fillers_changes_nothing() -> None:
    busy, idle = UpdateStats(seconds=1.0), UpdateStats(seconds=2.0)
    parts, old, engine, mask = tokens(0, 50)
    busy.observe(parts, old, engine, mask, cap=CAP)
    idle.observe(parts, old, engine, torch.zeros_like(mask), cap=CAP)
    alone, both = merge_ranks([busy]), merge_ranks([busy, idle])
    assert both["seconds"] == 2.0
    assert {k: v for k, v in both.items() if k != "seconds"} == {k: v for k, v in alone.items() if k != "seconds"}
