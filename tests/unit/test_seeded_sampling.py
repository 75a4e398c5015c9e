"""Sampling by inversion: the softmax's law, one row's seed at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.seeded_sampling import sample_by_inversion, seeded_forward


def generators(*seeds: int) -> dict[int, torch.Generator]:
    return {row: torch.Generator().manual_seed(seed) for row, seed in enumerate(seeds)}


def test_tokens_follow_the_softmax() -> None:
    draws = 20_000
    logits = torch.tensor([1.0, -0.5, 0.3, -torch.inf, 2.0, -3.0]).expand(draws, -1)
    counts = torch.bincount(sample_by_inversion(logits, generators(*range(draws))), minlength=6)
    expected = draws * logits[0].softmax(-1)
    assert counts[3] == 0
    live = expected > 0
    chi_square = float(((counts - expected)[live] ** 2 / expected[live]).sum())
    assert chi_square < 20.5, "4 degrees of freedom: exceeded once in 2,500 fair tests"


@given(st.lists(st.integers(0, 2**60), min_size=1, max_size=5), st.integers(0, 4), st.integers(0, 100))
@settings(max_examples=50)
def test_a_row_depends_on_its_own_seed_and_logits(seeds: list[int], row: int, noise: int) -> None:
    row %= len(seeds)
    logits = torch.randn(len(seeds), 40, generator=torch.Generator().manual_seed(noise))
    together = sample_by_inversion(logits, generators(*seeds))
    assert sample_by_inversion(logits[row : row + 1], generators(seeds[row])).tolist() == [together[row]]


def test_successive_draws_of_one_generator_differ() -> None:
    source = generators(7)
    logits = torch.zeros(1, 1000)
    assert len({int(sample_by_inversion(logits, source)) for _ in range(20)}) > 15


@pytest.mark.parametrize(
    ("number", "logits", "token"),
    [
        (0.0, [-torch.inf, 0.0, 0.0], 1),
        (0.4999, [0.0, 0.0, -torch.inf], 0),
        (0.5, [0.0, 0.0, -torch.inf], 1),
        (1 - 2**-53, [0.0, 0.0, 0.0], 2),
    ],
)
def test_the_first_token_past_the_number(
    monkeypatch: pytest.MonkeyPatch, number: float, logits: list[float], token: int
) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(number, dtype=torch.float64))
    assert sample_by_inversion(torch.tensor([logits]), generators(0)).tolist() == [token]


def test_cut_distributions_and_requests_without_a_seed_stay_with_the_engine() -> None:
    def own(*_: Any) -> tuple[torch.Tensor, None]:
        return torch.tensor([-1]), None

    forward = seeded_forward(own)
    logits, cut = torch.zeros(2, 5), torch.ones(2)
    assert forward(logits, generators(1, 2), cut, None)[0].tolist() == [-1]
    assert forward(logits, generators(1, 2), None, cut)[0].tolist() == [-1]
    assert forward(logits, generators(1), None, None)[0].tolist() == [-1]
    tokens, logprobs = forward(logits, generators(1, 2), None, None)
    assert tokens.tolist() == sample_by_inversion(logits, generators(1, 2)).tolist()
    assert logprobs is not None
    torch.testing.assert_close(logprobs, logits.log_softmax(-1))
