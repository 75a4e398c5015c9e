"""Eq. 6 and Eq. 8 against autograd of the printed formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.grpo import (
    group_advantages,
    importance_weights,
    informative_groups,
    next_token_logprobs,
    row_advantages,
    soft_grpo_loss,
    token_advantages,
)

EPS = 1e-6


def test_c16_advantages_are_standardised_inside_each_group() -> None:
    rewards = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 5.0, 5.0, 5.0]], "f4")
    expected = (np.array([1, 2, 3, 4]) - 2.5) / (np.std([1, 2, 3, 4]) + EPS)
    got = group_advantages(rewards, EPS)
    assert got[0] == pytest.approx(expected, abs=1e-5)
    assert (got[1] == 0).all()
    assert np.isfinite(got).all()
    assert informative_groups(rewards, 1e-6).tolist() == [True, False]
    assert not informative_groups(np.array([[0.0, 2.0]], "f4"), 1.0)[0], "a spread that is the tolerance is within it"
    assert group_advantages(np.array([[0.0, 2.0]], "f4"), 0.5)[0] == pytest.approx([-1 / 1.5, 1 / 1.5])


@given(st.integers(0, 2**31))
@settings(max_examples=40)
def test_c17_loss_equals_the_printed_formula_and_its_gradient(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    logprobs = (-torch.rand(20, generator=g, dtype=torch.float64) * 3).requires_grad_()
    old = logprobs.detach() + torch.randn(20, generator=g, dtype=torch.float64) * 0.3
    advantages = torch.randn(20, generator=g, dtype=torch.float64)
    b1, b2, clip = 0.05, 0.03, 0.2
    rho = torch.exp(logprobs - old)
    printed = -torch.min(rho * advantages, torch.clamp(rho, 1 - clip, 1 + clip) * advantages)
    printed = printed + b1 * rho * (logprobs - old) + b2 * (-logprobs)
    (expected,) = torch.autograd.grad(printed.sum(), logprobs)
    parts = soft_grpo_loss(logprobs, old, advantages, clip=clip, beta_policy_old=b1, beta_old_policy=b2)
    (got,) = torch.autograd.grad(parts.total.sum(), logprobs)
    torch.testing.assert_close(parts.total, printed)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(("rho", "coefficient"), [(1.0, 0.0), (1.2, 0.021), (0.8, -0.019), (2.0, 0.119), (0.5, -0.042)])
def test_c17_gradient_coefficient_of_the_two_kl_terms(rho: float, coefficient: float) -> None:
    old = torch.tensor([-1.0], dtype=torch.float64)
    logprobs = (old + np.log(rho)).requires_grad_()
    parts = soft_grpo_loss(logprobs, old, torch.zeros(1), clip=0.2, beta_policy_old=0.05, beta_old_policy=0.05)
    parts.total.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.item() == pytest.approx(coefficient, abs=6e-4)


def test_c18_the_loss_takes_the_old_policy_and_no_reference() -> None:
    """Old log-probabilities are constants: no gradient reaches them, and nothing else is asked for."""
    old = torch.tensor([-1.0, -2.0], requires_grad=True)
    logprobs = torch.tensor([-1.1, -1.7], requires_grad=True)
    soft_grpo_loss(
        logprobs, old, torch.ones(2), clip=0.2, beta_policy_old=0.05, beta_old_policy=0.05
    ).total.sum().backward()
    assert old.grad is None
    assert logprobs.grad is not None


def test_c19_equal_kl_coefficients_have_no_gradient_at_ratio_one() -> None:
    logprobs = torch.linspace(-3, -0.1, 7, dtype=torch.float64).requires_grad_()
    parts = soft_grpo_loss(
        logprobs, logprobs.detach(), torch.zeros(7), clip=0.2, beta_policy_old=0.05, beta_old_policy=0.05
    )
    parts.total.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.abs().max().item() < 1e-12


@pytest.mark.parametrize(("temperature", "law"), [(1.0, 1.0), (0.5, 0.5), (2.0, 2.0), (0.0, 1.0)])
def test_next_token_logprobs_are_those_of_the_sampling_law(temperature: float, law: float) -> None:
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[0, 1, 2, 3], [4, 3, 2, 1]])
    got = next_token_logprobs(logits, tokens, temperature)
    for s in range(2):
        for t in range(3):
            expected = torch.softmax(logits[s, t] / law, 0)[tokens[s, t + 1]].log()
            assert got[s, t].item() == pytest.approx(expected.item(), abs=1e-6)


def test_one_stale_token_cannot_blow_up_the_batch() -> None:
    logprobs = torch.tensor([-0.1], requires_grad=True)
    parts = soft_grpo_loss(
        logprobs, torch.tensor([-20.0]), torch.tensor([1.0]), clip=0.2, beta_policy_old=0.05, beta_old_policy=0.05
    )
    assert parts.kl_policy_old.item() == 10.0
    assert parts.clipped.item() == 1.0
    assert parts.total.item() == pytest.approx(-1.2 + 0.05 * 10.0 + 0.05 * 0.1)


def test_the_parts_are_those_of_the_formula_and_importance_weighs_the_sum_of_them() -> None:
    old, advantages = torch.tensor([-1.0, -2.0, -1.0, -0.1]), torch.tensor([1.0, -1.0, 0.0, 2.0])
    logprobs, importance = old + torch.tensor([0.5, -0.5, 0.3, 0.0]), torch.tensor([0.5, 2.0, 1.0, 0.25])
    given = {"clip": 0.2, "beta_policy_old": 0.05, "beta_old_policy": 0.03}
    plain = soft_grpo_loss(logprobs, old, advantages, **given)
    rho = torch.tensor([0.5, -0.5, 0.3, 0.0]).exp()
    torch.testing.assert_close(plain.ratio, rho)
    torch.testing.assert_close(plain.policy, -torch.tensor([1.2, -0.8, 0.0, 2.0]))
    torch.testing.assert_close(plain.kl_policy_old, rho * rho.log())
    torch.testing.assert_close(plain.kl_old_policy, -logprobs)
    assert plain.clipped.tolist() == [1, 1, 0, 0]
    assert plain.clipped.dtype is torch.float32
    weighed = soft_grpo_loss(logprobs, old, advantages, importance=importance, **given)
    torch.testing.assert_close(weighed.total, plain.total * importance)


def test_importance_weights_are_truncated() -> None:
    weights = importance_weights(torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, -5.0]), cap=2.0)
    assert weights.tolist() == [1.0, 2.0]


def test_row_advantages_compare_places_on_one_scale_for_the_valid_answers_of_a_group() -> None:
    rng = np.random.default_rng(0)
    credit = (rng.normal(size=(2, 4, 3)) + np.array([5.0, 0.0, -5.0])).astype("f4")  # what is left to find shrinks
    valid = np.array([[True, True, False, True], [False] * 4])
    got = row_advantages(credit, valid, EPS)
    kept, centred = got[0][valid[0]], credit[0][valid[0]] - credit[0][valid[0]].mean(axis=0)
    assert kept.mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-5)
    assert kept == pytest.approx(centred / centred.std(), abs=1e-4)
    assert (got[0][2] == 0).all()
    assert (got[1] == 0).all()


@given(st.integers(0, 2**31), st.sampled_from([1e-6, 0.5]))
@settings(max_examples=40)
def test_row_advantages_equal_a_loop_over_groups_and_places(seed: int, eps: float) -> None:
    rng = np.random.default_rng(seed)
    credit, valid = rng.normal(size=(3, 5, 4)).astype("f4"), rng.random((3, 5)) < 0.5
    got = row_advantages(credit, valid, eps)
    assert got.dtype == np.float32
    for g in range(3):
        kept = credit[g][valid[g]].astype(np.float64)
        if not len(kept):
            assert (got[g] == 0).all()
            continue
        centred = kept - kept.mean(axis=0)
        assert got[g][valid[g]] == pytest.approx(centred / (np.sqrt(np.mean(centred**2)) + eps), abs=1e-3)
        assert (got[g][~valid[g]] == 0).all()


def test_tokens_carry_their_rows_advantage_and_separators_the_sets() -> None:
    got = token_advantages(9.0, np.array([1.0, 2.0], "f4"), np.array([-1, 0, 0, -1, 1, -1]))
    assert got.tolist() == [9.0, 1.0, 1.0, 9.0, 2.0, 9.0]
    assert got.dtype == np.float32
