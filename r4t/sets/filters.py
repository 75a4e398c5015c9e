"""Filters and balance of training sets, all off by default: pure functions of the stored columns.

Each takes the sets that are left and returns which of them stay. `filter_sets` applies them in one order and counts
what each removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from r4t.config import Sets
from r4t.types import Bools, Floats, Ints

Compact = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filtered:
    """What the filters left of M answers."""

    kept: Bools
    """[M]"""
    removed: dict[str, int]
    """By reason, in the order of application: every filter that is on, after the answers that were no list."""


def filter_sets(
    query: Compact, sample: Compact, rows: Compact, reward: Floats, valid: Bools, settings: Sets
) -> Filtered:
    """Applies the configured filters to M answers, of which only the `valid` are sets. `rows` [M, L], the rest [M].

    `min_reward` keeps sets of at least that reward; `top_fraction` the best share of each query's valid answers, other
    filters aside; `near_duplicate` and `item_cap` then look at what is left, best reward first.
    """
    kept, removed = valid.copy(), {"unparsable": int((~valid).sum())}

    def apply(name: str, stay: Bools) -> None:
        removed[name] = int((kept & ~stay).sum())
        kept[:] = kept & stay

    if settings.min_reward is not None:
        apply("min_reward", reward >= settings.min_reward)
    if settings.top_fraction is not None:
        apply("top_fraction", best_share(query, reward, valid, settings.top_fraction))
    if settings.near_duplicate is not None:
        apply("near_duplicate", without_near_duplicates(query, sample, rows, reward, kept, settings.near_duplicate))
    if settings.item_cap is not None:
        apply("item_cap", capped(query, sample, rows, reward, kept, settings.item_cap))
    return Filtered(kept=kept, removed=removed)


def best_share(query: Compact, reward: Floats, valid: Bools, share: float) -> Bools:
    """[M] the best `share` of each query's valid answers, rounded up; of equal rewards the one stored first."""
    order = np.lexsort((-reward, ~valid, query))
    _, starts, counts = np.unique(query[order], return_index=True, return_counts=True)
    place = np.arange(len(query)) - np.repeat(starts, counts)
    n_valid = np.add.reduceat(valid[order].astype(np.int64), starts)
    best = np.zeros(len(query), dtype=bool)
    best[order] = place < np.repeat(np.ceil(share * n_valid), counts)
    return best & valid


def without_near_duplicates(
    query: Compact, sample: Compact, rows: Compact, reward: Floats, among: Bools, threshold: float
) -> Bools:
    """[M] of the sets `among`: those unlike every set of their query that was kept before them.

    Sets of a query are looked at from the highest reward down (then by sample). One goes when the Jaccard similarity
    |A and B| / |A or B| of its distinct row ids with those of a kept one is at least `threshold`.
    """
    kept = np.zeros(len(query), dtype=bool)
    looked_at = np.flatnonzero(among)
    order = looked_at[np.lexsort((sample[looked_at], -reward[looked_at], query[looked_at]))]
    bounds = np.flatnonzero(np.diff(query[order], prepend=-1, append=-1))
    for start, stop in pairwise(bounds):
        group = order[start:stop]
        kept[group[_unlike(rows[group], threshold)]] = True
    return kept


def capped(query: Compact, sample: Compact, rows: Compact, reward: Floats, among: Bools, cap: int) -> Bools:
    """[M] of the sets `among`: a choice in which no row id stands in more than `cap` sets.

    Greedy: from the highest reward down (then by query and sample), a set stays unless one of its ids is at its cap.
    """
    kept = np.zeros(len(query), dtype=bool)
    looked_at = np.flatnonzero(among)
    order = looked_at[np.lexsort((sample[looked_at], query[looked_at], -reward[looked_at]))]
    uses = [0] * (int(rows[order].max(initial=-1)) + 1)
    for one in order.tolist():
        ids = set(rows[one].tolist())
        if all(uses[i] < cap for i in ids):
            kept[one] = True
            for i in ids:
                uses[i] += 1
    return kept


def _unlike(sets: Compact, threshold: float) -> Ints:
    """Places of [m, L] that stay, looked at in order."""
    ids, place = np.unique(sets, return_inverse=True)
    holds = np.zeros((len(sets), len(ids)), dtype=np.float32)
    np.put_along_axis(holds, place.reshape(sets.shape), 1.0, axis=1)
    common = (holds @ holds.T).astype(np.float64)  # whole numbers, so that a ratio of 3 to 5 equals 0.6 to the bit
    sizes = np.diagonal(common)
    like = common / (sizes[:, None] + sizes[None, :] - common) >= threshold
    stay: list[int] = []
    for one in range(len(sets)):
        if not like[one, stay].any():
            stay.append(one)
    return np.array(stay, dtype=np.int64)
