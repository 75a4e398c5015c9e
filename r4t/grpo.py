"""Soft-GRPO: group advantages (paper Eq. 6) and the loss with both KL terms to the old policy (Eq. 8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from r4t.types import Bools, Floats, Ints


def group_advantages(rewards: Floats, eps: float) -> Floats:
    """Eq. 6: `(r - mean) / (std + eps)` inside each group, population std. `rewards` [Q, G] -> [Q, G]."""
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    return centred / (rewards.std(axis=1, keepdims=True) + eps)


def informative_groups(rewards: Floats, tolerance: float) -> Bools:
    """[Q]: groups whose rewards [Q, G] spread by more than `tolerance` (standard deviation)."""
    return rewards.std(axis=1) > tolerance


def row_advantages(credit: Floats, valid: Bools, eps: float) -> Floats:
    """Group-standardised credit of single sub-queries: [Q, G, k] -> [Q, G, k], over the valid answers of each group.

    An extension of Eq. 6 (`objective.credit: row`). A sub-query competes with those in the same place of the group's
    other answers, because what is left to find shrinks along an answer; one scale serves the whole group.
    """
    mask = np.broadcast_to(valid[:, :, None], credit.shape)
    mean = (credit * mask).sum(axis=1, keepdims=True) / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    count = np.maximum(mask.sum(axis=(1, 2), keepdims=True), 1)
    variance = (((credit - mean) ** 2) * mask).sum(axis=(1, 2), keepdims=True) / count
    return np.where(mask, (credit - mean) / (np.sqrt(variance) + eps), 0.0).astype(np.float32)


def token_advantages(set_advantage: float, rows: Floats, token_rows: Ints) -> Floats:
    """[T]: a sub-query's tokens carry its row advantage (`rows` [k]); separators and the end carry the set's.

    `token_rows` [T] holds the sub-query of each token, or -1.
    """
    return np.where(token_rows >= 0, rows[np.maximum(token_rows, 0)], set_advantage).astype(np.float32)


def next_token_logprobs(logits: torch.Tensor, tokens: torch.Tensor, temperature: float) -> torch.Tensor:
    """[S, T, V] logits and [S, T] tokens -> [S, T-1] log-probability of each next token, in float32.

    Under the sampling law at `temperature`; greedy decoding (0) reports the law at 1, as the engine does.
    """
    logits = logits[:, :-1].float()
    if temperature not in (0.0, 1.0):
        logits = logits / temperature
    return torch.gather(logits.log_softmax(-1), 2, tokens[:, 1:, None]).squeeze(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossParts:
    """Per-token parts of Eq. 8, each [T...], unmasked. `total` is what is averaged and minimised."""

    total: torch.Tensor
    policy: torch.Tensor
    kl_policy_old: torch.Tensor
    """Sample of `rho ln rho`, the estimator of KL(policy || old)."""
    kl_old_policy: torch.Tensor
    """`-ln pi`, KL(old || policy) up to a constant in theta."""
    ratio: torch.Tensor
    clipped: torch.Tensor
    """1 where the clipped branch is active."""


def soft_grpo_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    *,
    clip: float,
    beta_policy_old: float,
    beta_old_policy: float,
    importance: torch.Tensor | None = None,
) -> LossParts:
    """Eq. 8 per token, for tensors of one shape. Gradients flow through `logprobs` alone.

    `importance` are detached truncated weights of the learner's old policy against the engine that sampled (1 = Eq. 8
    exactly). `rho ln rho` is clamped to [-10, 10] so that one stale token cannot blow up the batch.
    """
    log_ratio = logprobs - old_logprobs.detach()
    ratio = log_ratio.exp()
    unclipped = ratio * advantages
    bounded = ratio.clamp(1.0 - clip, 1.0 + clip) * advantages
    policy = -torch.minimum(unclipped, bounded)
    kl_policy_old = (ratio * log_ratio).clamp(-10.0, 10.0)
    kl_old_policy = -logprobs
    total = policy + beta_policy_old * kl_policy_old + beta_old_policy * kl_old_policy
    if importance is not None:
        total = total * importance.detach()
    return LossParts(
        total=total,
        policy=policy,
        kl_policy_old=kl_policy_old,
        kl_old_policy=kl_old_policy,
        ratio=ratio,
        clipped=(bounded < unclipped).to(logprobs.dtype),
    )


def importance_weights(old_logprobs: torch.Tensor, engine_logprobs: torch.Tensor, cap: float) -> torch.Tensor:
    """Truncated importance sampling: `min(pi_learner_old / pi_engine, cap)` per token."""
    return (old_logprobs - engine_logprobs).exp().clamp(max=cap)
