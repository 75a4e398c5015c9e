"""Seeded sampling at the cost of one random number a token.

vLLM draws an exponential variate for *every entry of the vocabulary* from each request's own generator, one request
after the other: a large part of decoding on a CPU, and more with a larger vocabulary. Inverting the
cumulative distribution at one uniform number samples the same law.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Forward = Callable[..., tuple[torch.Tensor, torch.Tensor | None]]


def sample_by_inversion(logits: torch.Tensor, generators: dict[int, torch.Generator]) -> torch.Tensor:
    """[S, V] logits and a generator per row -> [S] tokens drawn from their softmax. A row depends on itself alone."""
    uniform = torch.stack(
        [
            torch.rand((), generator=generators[row], device=logits.device, dtype=torch.float64)
            for row in range(len(logits))
        ]
    )
    cumulative = logits.softmax(dim=-1, dtype=torch.float32).cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    # right=True: the first token whose cumulative probability exceeds the number, so never one of probability 0.
    return (
        torch.searchsorted(cumulative, uniform[:, None] * total, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)
    )


def seeded_forward(fallback: Forward) -> Forward:
    """Stands in for the `forward` of vLLM's `TopKTopPSampler` (0.29.0) in the mode `processed_logprobs`.

    Batches that cut the distribution (top-k, top-p) or hold a request without a seed go to vLLM's own `fallback`.
    """

    def forward(
        logits: torch.Tensor,
        generators: dict[int, torch.Generator],
        k: torch.Tensor | None,
        p: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if k is not None or p is not None or len(generators) < len(logits):
            return fallback(logits, generators, k, p)
        return sample_by_inversion(logits, generators), logits.log_softmax(dim=-1, dtype=torch.float32)

    return forward


class SeededSampling:
    """Mixed into vLLM's worker."""

    model_runner: Any

    def use_seeded_sampling(self) -> None:
        """Replaces how this engine draws tokens for requests with seeds."""
        sampler = self.model_runner.sampler.topk_topp_sampler
        sampler.forward = seeded_forward(sampler.forward)
