"""OpenRLHF's policy loss with Soft-GRPO's KL terms is R4T's loss, in value and in gradient."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import openrlhf_wheel
import pytest
import torch

from r4t.errors import UserError
from r4t.grpo import importance_weights, soft_grpo_loss
from r4t.interop import openrlhf_patch
from r4t.interop.openrlhf_loss import soft_grpo_policy_loss

CAP = 2.0
CORRECTION = {"is_correction_level": "token", "is_correction_mode": "clip", "is_correction_threshold": [0.0, CAP]}


@pytest.fixture(scope="module")
def loss(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return openrlhf_wheel.loss_module(openrlhf_wheel.package(tmp_path_factory.mktemp("openrlhf")))


def tensors(seed: int, scale: float = 0.4) -> tuple[torch.Tensor, ...]:
    """Log-probabilities now, before and of the engine, advantages and mask, each [6, 11]."""
    g = torch.Generator().manual_seed(seed)
    old = -torch.rand((6, 11), generator=g) * 4
    now = old + scale * torch.randn((6, 11), generator=g)
    engine = old + 0.5 * torch.randn((6, 11), generator=g)
    mask = (torch.rand((6, 11), generator=g) < 0.7).float()
    mask[2] = 0.0  # a sequence without a trained token
    return now, old, engine, torch.randn((6, 11), generator=g), mask


def graded(now: torch.Tensor, value: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """`value(x)` and its gradient at x = `now`."""
    x = now.clone().requires_grad_()
    result = value(x)
    result.backward()
    assert x.grad is not None
    return result.detach(), x.grad


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("corrected", [False, True], ids=["plain", "truncated-importance"])
@pytest.mark.parametrize(("b1", "b2"), [(0.0, 0.0), (0.05, 0.05), (0.3, 0.0), (0.0, 0.2)])
@pytest.mark.parametrize("scale", [0.4, 6.0], ids=["near", "far"])
def test_c18_the_extended_loss_is_soft_grpo(
    loss: Any, seed: int, corrected: bool, b1: float, b2: float, scale: float
) -> None:
    now, old, engine, advantages, mask = tensors(seed, scale)
    theirs = soft_grpo_policy_loss(loss, b1, b2)(**(CORRECTION if corrected else {}))

    def extended(x: torch.Tensor) -> torch.Tensor:
        return theirs(x, old, advantages, action_mask=mask, rollout_log_probs=engine)[0]

    def own(x: torch.Tensor) -> torch.Tensor:
        weights = importance_weights(old, engine, CAP) if corrected else None
        parts = soft_grpo_loss(x, old, advantages, clip=0.2, beta_policy_old=b1, beta_old_policy=b2, importance=weights)
        return (parts.total * mask).sum() / mask.sum()

    (value, gradient), (expected, wanted) = graded(now, extended), graded(now, own)
    largest = max(1.0, float(expected.abs()), float(wanted.abs().max()))
    assert float((value - expected).abs()) < 1e-6 * largest
    assert float((gradient - wanted).abs().max()) < 1e-6 * largest
    assert wanted.abs().max() > 1e-3


def test_without_kl_terms_it_is_openrlhfs_own_loss_and_metrics(loss: Any) -> None:
    now, old, engine, advantages, mask = tensors(7)
    batch = {"dp_size": 2, "batch_num_tokens": torch.tensor(50.0), "global_batch_size": torch.tensor(5.0)}
    for aggregate in (True, False):
        own, extended = (
            kind(token_level_loss=aggregate, **CORRECTION)(now, old, advantages, mask, engine, **batch)
            for kind in (loss.PolicyLoss, soft_grpo_policy_loss(loss, 0.0, 0.0))
        )
        for ours, theirs in zip(extended, own, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


def test_kl_terms_are_averaged_as_the_trainer_averages(loss: Any) -> None:
    """Over the tokens of all ranks and micro-batches, which it passes as their number."""
    now, old, engine, advantages, mask = tensors(3)
    extended = soft_grpo_policy_loss(loss, 0.1, 0.2)()
    tokens, ranks = 123.0, 4
    value = extended(now, old, advantages, mask, engine, dp_size=ranks, batch_num_tokens=torch.tensor(tokens))[0]
    parts = soft_grpo_loss(now, old, advantages, clip=0.2, beta_policy_old=0.1, beta_old_policy=0.2)
    assert float(value) == pytest.approx(float((parts.total * mask).sum()) / tokens * ranks, abs=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"policy_loss_type": "gspo"},
        {"dual_clip": 3.0},
        {"is_correction_level": "seq"},
        {"is_correction_level": "token", "is_correction_mode": "mask"},
    ],
)
def test_a_loss_that_eq_8_does_not_describe_is_refused(loss: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"Soft-GRPO is defined on tokens.*--actor\.policy_loss_type ppo"):
        soft_grpo_policy_loss(loss, 0.05, 0.05)(**settings)


def test_the_patch_extends_the_loss_once_and_only_when_asked(loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("copy")
    module.__dict__.update(PolicyLoss=loss.PolicyLoss, aggregate_loss=loss.aggregate_loss)
    monkeypatch.delenv(openrlhf_patch.VARIABLE, raising=False)
    openrlhf_patch.extend_loss(module)
    assert module.PolicyLoss is loss.PolicyLoss
    monkeypatch.setenv(openrlhf_patch.VARIABLE, "0.1,0.2")
    openrlhf_patch.extend_loss(module)
    openrlhf_patch.extend_loss(module)
    assert module.PolicyLoss.__mro__[1] is loss.PolicyLoss
    now, old, _, advantages, mask = tensors(0)
    more = module.PolicyLoss()(now, old, advantages, mask)[0] - loss.PolicyLoss()(now, old, advantages, mask)[0]
    parts = soft_grpo_loss(now, old, advantages, clip=0.2, beta_policy_old=0.1, beta_old_policy=0.2)
    terms = 0.1 * parts.kl_policy_old + 0.2 * parts.kl_old_policy
    assert float(more) == pytest.approx(float((terms * mask).sum() / mask.sum()), abs=1e-6)
