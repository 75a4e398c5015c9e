"""Optimal matching of rows against brute force, and the energy score that is built on it."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.diffusion.distill import energy_score
from r4t.diffusion.matching import in_order, match_rows, set_distance


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_matching_has_the_least_sum_of_squared_distances(seed: int, rows: int) -> None:
    a, b = (torch.randn(3, rows, 4, generator=seeded(seed + i)) for i in (0, 1))
    order = match_rows(a, b)
    for x, y, found in zip(a, b, order, strict=True):
        least = min(float((x - y[list(p)]).square().sum()) for p in permutations(range(rows)))
        assert float((x - y[found]).square().sum()) == pytest.approx(least, rel=1e-5)
        assert sorted(found.tolist()) == list(range(rows))


def test_rows_are_found_again_in_any_order() -> None:
    sets = torch.randn(4, 6, 3, generator=seeded(0))
    shuffled = sets[:, torch.randperm(6, generator=seeded(1))]
    assert torch.equal(in_order(shuffled, match_rows(sets, shuffled)), sets)
    assert set_distance(sets, shuffled).max() < 1e-5


def test_distance_of_sets_is_the_mean_distance_of_their_rows() -> None:
    a = torch.tensor([[[0.0, 0.0], [10.0, 0.0]]])
    b = torch.tensor([[[10.0, 3.0], [0.0, 1.0]]])
    assert set_distance(a, b).item() == pytest.approx((1 + 3) / 2)
    assert set_distance(a, b).item() == pytest.approx(set_distance(b, a).item())


def test_energy_score_prefers_the_law_of_the_targets() -> None:
    """Two-row sets around random centres: a student that draws them as they are beats one that always answers the mean
    and one that scatters twice as wide."""

    def sets(spread: float, seed: int) -> torch.Tensor:
        centres = torch.tensor([[0.0, 0.0, 1.0], [4.0, 0.0, 0.0]])
        return centres + spread * torch.randn(4000, 2, 3, generator=seeded(seed))

    target = sets(1.0, 0)
    scores = {
        spread: energy_score(sets(spread, 1), sets(spread, 2), target).mean().item() for spread in (0.0, 1.0, 2.0)
    }
    assert scores[1.0] < min(scores[0.0], scores[2.0]) - 0.05


def test_gradient_flows_through_both_draws() -> None:
    draws = [torch.randn(2, 3, 4, generator=seeded(i), requires_grad=True) for i in (0, 1)]
    energy_score(*draws, torch.randn(2, 3, 4, generator=seeded(2))).sum().backward()
    for draw in draws:
        assert draw.grad is not None
        assert torch.isfinite(draw.grad).all()
        assert draw.grad.abs().min() > 0
    same = torch.randn(2, 3, 4, generator=seeded(3), requires_grad=True)
    energy_score(same, same, same.detach()).sum().backward()
    assert torch.isfinite(same.grad).all()  # at distance zero too
