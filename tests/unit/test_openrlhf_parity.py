"""Without its KL terms, Soft-GRPO is OpenRLHF's clipped policy loss, in value and in gradient."""

from __future__ import annotations

from typing import Any

import openrlhf_wheel
import pytest
import torch

from r4t.grpo import importance_weights, soft_grpo_loss

CAP = 2.0


@pytest.fixture(scope="module")
def policy_loss(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return openrlhf_wheel.loss_module(openrlhf_wheel.package(tmp_path_factory.mktemp("openrlhf"))).PolicyLoss


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("corrected", [False, True], ids=["plain", "truncated-importance"])
def test_c17_soft_grpo_without_kl_is_openrlhfs_policy_loss(policy_loss: Any, seed: int, corrected: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    shape = (6, 11)
    old = -torch.rand(shape, generator=g) * 4
    start = old + 0.4 * torch.randn(shape, generator=g)
    engine = old + 0.5 * torch.randn(shape, generator=g)
    advantages = torch.randn(shape, generator=g)
    mask = (torch.rand(shape, generator=g) < 0.7).float()
    tokens = mask.sum()

    ours = start.clone().requires_grad_()
    weights = importance_weights(old, engine, CAP) if corrected else None
    parts = soft_grpo_loss(
        ours, old, advantages, clip=0.2, beta_policy_old=0.0, beta_old_policy=0.0, importance=weights
    )
    value = (parts.total * mask).sum() / tokens
    value.backward()

    theirs = start.clone().requires_grad_()
    correction = {"is_correction_level": "token", "is_correction_mode": "clip", "is_correction_threshold": [0.0, CAP]}
    oracle = policy_loss(clip_eps_low=0.2, clip_eps_high=0.2, **(correction if corrected else {}))
    expected, clip_ratio, *_ = oracle(theirs, old, advantages, action_mask=mask, rollout_log_probs=engine)
    expected.backward()

    assert ours.grad is not None
    assert theirs.grad is not None
    assert theirs.grad.abs().max() > 1e-3
    assert float((value - expected).detach().abs()) < 1e-6
    assert float((ours.grad - theirs.grad).abs().max()) < 1e-6
    assert float((parts.clipped * mask).sum() / tokens) == pytest.approx(float(clip_ratio), abs=1e-6)
