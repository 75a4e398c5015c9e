"""Maximal marginal relevance (Carbonell & Goldstein, 1998), in NumPy alone."""

from __future__ import annotations

import numpy as np

from r4t.types import Floats, Ints

MMR_POOL = 200
"""Nearest items from which a set is chosen."""


def mmr_select(relevance: Floats, candidates: Floats, k: int, trade_off: float) -> Ints:
    """Positions [B, k] that greedy MMR takes from relevance [B, P] and candidates [B, P, d]; ties go to the first."""
    batch = np.arange(len(relevance))
    available = np.ones(relevance.shape, dtype=bool)
    redundancy = np.zeros_like(relevance)
    chosen = np.empty((len(relevance), k), dtype=np.int64)
    for step in range(k):
        value = trade_off * relevance - (1 - trade_off) * redundancy
        best = np.where(available, value, -np.inf).argmax(axis=1)
        chosen[:, step] = best
        available[batch, best] = False
        similarity = np.einsum("bpd,bd->bp", candidates, candidates[batch, best])
        redundancy = similarity if step == 0 else np.maximum(redundancy, similarity)
    return chosen
