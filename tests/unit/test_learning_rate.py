"""The learning rate of reinforcement learning over its rollout batches."""

from __future__ import annotations

from itertools import pairwise

import pytest

from jobs.train_folm import learning_rate
from r4t.config import RL


def test_it_is_constant_unless_a_final_rate_is_given() -> None:
    assert {learning_rate(RL(steps=5, lr=1e-3), step) for step in range(5)} == {1e-3}


def test_it_warms_up_then_falls_in_a_straight_line_to_the_final_rate() -> None:
    rl = RL(steps=12, lr=1e-3, final_lr=1e-4, warmup_steps=2)
    rates = [learning_rate(rl, step) for step in range(12)]
    assert rates[:3] == pytest.approx([5e-4, 1e-3, 1e-3])
    assert rates[-1] == pytest.approx(1e-4)
    falls = [before - after for before, after in pairwise(rates[2:])]
    assert falls == pytest.approx([1e-4] * 9)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_short_runs_start_at_the_full_rate(steps: int) -> None:
    assert learning_rate(RL(steps=steps, lr=1e-3, final_lr=1e-4), 0) == pytest.approx(1e-3)
