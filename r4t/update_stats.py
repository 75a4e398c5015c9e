"""What the learner ranks report of an update, and how their reports become one line of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from r4t.grpo import LossParts
from r4t.types import Floats, Ints

EDGES: Floats = np.geomspace(1e-7, 1e2, 9 * 40 + 1).astype(np.float32)
"""Bin edges of the mismatch histogram, nats: 40 a decade, so that a quantile is right to 6 %."""


@dataclass(slots=True, kw_only=True)
class UpdateStats:
    """Totals over the trained tokens of one rank. Counts of fixed bins add up over ranks; quantiles would not."""

    tokens: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    mismatch_counts: Ints = field(default_factory=lambda: np.zeros(len(EDGES) + 1, dtype=np.int64))
    """[bins]: below the first edge, between edges, above the last."""
    seconds: float = 0.0

    def observe(
        self, parts: LossParts, old: torch.Tensor, engine: torch.Tensor, mask: torch.Tensor, *, cap: float
    ) -> None:
        """Adds a micro-batch: its loss, and log-probabilities of the learner before the update and of the engine."""
        if not mask.any():
            return
        ratio, before, sampled = parts.ratio.detach()[mask], old[mask], engine[mask]
        mismatch = (before - sampled).abs()
        importance = (before - sampled).exp()
        self.add_sums(
            policy_loss=parts.policy.detach()[mask],
            kl_policy_old=parts.kl_policy_old.detach()[mask],
            kl_old_policy=before + parts.kl_old_policy.detach()[mask],
            nll=-before,
            clipped=parts.clipped[mask],
            ratio=ratio,
            mismatch=mismatch,
            importance=importance.clamp(max=cap),
            truncated=(importance > cap).float(),
        )
        self.tokens += int(mask.sum())
        self.add_peaks(ratio=float(ratio.max()), mismatch=float(mismatch.max()))
        self.mismatch_counts += histogram(mismatch.float().cpu().numpy())

    def add_sums(self, **values: torch.Tensor) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.sum())

    def add_peaks(self, **values: float) -> None:
        for name, value in values.items():
            self.peaks[name] = max(self.peaks.get(name, value), value)


def merge_ranks(ranks: Sequence[UpdateStats]) -> dict[str, float]:
    """Means over the tokens of all ranks, `*_max` peaks, the 95th percentile of the mismatch, tokens and seconds."""
    tokens = sum(rank.tokens for rank in ranks)
    names = {name: None for rank in ranks for name in rank.sums}
    peaks = {name: None for rank in ranks for name in rank.peaks}
    counts = np.sum([rank.mismatch_counts for rank in ranks], axis=0)
    return (
        {name: sum(rank.sums.get(name, 0.0) for rank in ranks) / max(tokens, 1.0) for name in names}
        | {f"{name}_max": max(rank.peaks[name] for rank in ranks if name in rank.peaks) for name in peaks}
        | {"mismatch_p95": quantile(counts, 0.95), "tokens": tokens}
        | {"seconds": max(rank.seconds for rank in ranks)}
    )


def histogram(values: Floats) -> Ints:
    """Counts of `values` [N] in the bins of `EDGES`."""
    return np.bincount(np.searchsorted(EDGES, values, side="right"), minlength=len(EDGES) + 1)


def quantile(counts: Ints, q: float) -> float:
    """The value below which a share `q` of the counted values lies, to the geometric centre of its bin; 0 for none."""
    if not counts.sum():
        return 0.0
    bin_index = int(np.searchsorted(np.cumsum(counts), q * counts.sum()))
    if bin_index == 0:
        return 0.0
    low, high = EDGES[bin_index - 1], EDGES[min(bin_index, len(EDGES) - 1)]
    return float(np.sqrt(low * high))
