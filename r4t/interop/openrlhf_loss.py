"""OpenRLHF's policy loss with the two KL terms of Soft-GRPO (paper Eq. 8)."""

from __future__ import annotations

from typing import Any

from r4t.errors import UserError
from r4t.grpo import soft_grpo_loss

NEEDED = {"policy_loss_type": "ppo", "dual_clip": None, "is_correction_gating": "ratio"}


def soft_grpo_policy_loss(module: Any, beta_policy_old: float, beta_old_policy: float) -> type:
    """A subclass of `PolicyLoss` in `module` (openrlhf.models.loss) with Eq. 8's coefficients. At 0 and 0 it is the
    same loss.

    Both KL terms are those of `r4t.grpo`, weighted by the same truncated importance and averaged over the same tokens
    as OpenRLHF's own term. Constructing it raises UserError for a loss that Eq. 8 does not describe.
    """

    base: Any = module.PolicyLoss

    class SoftGRPOPolicyLoss(base):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            own = {name: getattr(self, name) for name in NEEDED}
            if own != NEEDED or (self.is_correction_level, self.is_correction_mode) not in {
                ("off", self.is_correction_mode),
                ("token", "clip"),
            }:
                raise UserError(
                    "Soft-GRPO is defined on tokens, clipped on one ratio and corrected by clipped token weights: use"
                    " --actor.policy_loss_type ppo, no --actor.dual_clip, and --algo.advantage.is_correction_level off,"
                    " or token with --algo.advantage.is_correction_mode clip and ..._gating ratio"
                )

        def forward(
            self,
            log_probs: Any,
            old_log_probs: Any,
            advantages: Any,
            action_mask: Any = None,
            rollout_log_probs: Any = None,
            **batch: Any,
        ) -> Any:
            loss, *rest = super().forward(log_probs, old_log_probs, advantages, action_mask, rollout_log_probs, **batch)
            parts = soft_grpo_loss(
                log_probs,
                old_log_probs,
                advantages,
                clip=self.clip_eps_low,
                beta_policy_old=beta_policy_old,
                beta_old_policy=beta_old_policy,
            )
            terms = beta_policy_old * parts.kl_policy_old + beta_old_policy * parts.kl_old_policy
            if self.is_correction_level == "token":
                low, high = self.is_correction_threshold
                terms = terms * (old_log_probs - rollout_log_probs).detach().exp().clamp(min=low, max=high)
            kl = module.aggregate_loss(terms, action_mask, token_level_loss=self.token_level_loss, **batch)
            return (loss + kl, *rest)

    return SoftGRPOPolicyLoss
