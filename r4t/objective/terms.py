"""Parts of the set-level reward as pure functions over a batch of sets (paper Eq. 3-5, and beyond it).

Shapes: B sets, k sub-queries, n items per sub-query, d width, N items. All vectors have unit length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from r4t.types import Bools, Floats, Ints


def groundedness_rows(top_cosine: Floats) -> Floats:
    """[B, k]: `1 - ||e(q_i) - e(c)||_2` to the nearest item, from its cosine. In [-1, 1] (paper Eq. 3)."""
    return np.asarray(1.0 - np.sqrt(np.clip(2.0 - 2.0 * top_cosine, 0.0, None)), dtype=np.float32)


def cosine_rows(rows: Floats, query: Floats) -> Floats:
    """[B, k]: cosine of each row of `rows` [B, k, d] with `query` [B, d] (paper Eq. 4 when rows are sub-queries)."""
    return np.einsum("bkd,bd->bk", rows, query)


def first_finds(shown: Ints) -> Floats:
    """[B, k]: 1 where a sub-query's nearest item (`shown` [B, k]) is new to its set, 0 where it repeats one."""
    earlier = np.tril(shown[:, :, None] == shown[:, None, :], k=-1)  # [B, k, k]
    return np.asarray(~earlier.any(axis=2), dtype=np.float32)


def coverage(items: Ints, references: Sequence[Sequence[int]], weights: Floats) -> Floats:
    """[B]: weighted share of each reference set found anywhere in `items` [B, k, n] (paper Eq. 5 at weights of 1).

    `weights` [N] are non-negative item weights. Raises ValueError on an empty reference set.
    """
    return coverage_credit(items, references, weights).sum(axis=-1)


def coverage_credit(items: Ints, references: Sequence[Sequence[int]], weights: Floats) -> Floats:
    """[B, k]: what each sub-query adds to the coverage of those before it; the rows sum to the coverage.

    An item counts for its first finder alone, because a policy that writes in order can know what it has already found:
    sharing an item among its finders would pay a repetition better than a miss.
    """
    batch, k = items.shape[:2]
    credit = np.zeros((batch, k), dtype=np.float64)
    for b, reference in enumerate(references):
        if not len(reference):
            raise ValueError("coverage needs a non-empty reference set for every query")
        wanted = np.asarray(reference)
        found = (items[b][:, :, None] == wanted).any(axis=1)  # [k, m]
        first = found & (np.cumsum(found, axis=0) == 1)
        credit[b] = first @ (weights[wanted] / max(weights[wanted].sum(), 1e-12))
    return credit.astype(np.float32)


def mean_cosine_rows(rows: Floats) -> Floats:
    """[B, k]: mean cosine of each row of `rows` [B, k, d] with the k-1 others; 1 for a set of one."""
    k = rows.shape[1]
    if k == 1:
        return np.ones(rows.shape[:2], dtype=np.float32)
    toward_all = np.einsum("bkd,bd->bk", rows, rows.sum(axis=1))
    return np.asarray((toward_all - 1.0) / (k - 1), dtype=np.float32)


def first_of_kind(kinds: Ints, wanted: int, counted: Bools | None = None) -> Floats:
    """[B, k]: 1/`wanted` where a shown item is the first of its kind in its set, else 0; at most `wanted` kinds count.

    `kinds` [B, k] are category codes, -1 for none. `counted` [C] says which codes count (None: all).
    """
    fresh = first_finds(kinds).astype(bool) & (kinds >= 0)
    if counted is not None:
        fresh &= counted[np.maximum(kinds, 0)]
    fresh &= np.cumsum(fresh, axis=1) <= wanted
    return np.asarray(fresh / np.float32(wanted), dtype=np.float32)


def within_budget(amounts: Floats, limit: float) -> Floats:
    """[B]: 1 where the sum of `amounts` [B, k] is at most `limit`, else `limit / sum`. NaN amounts count as nothing."""
    total = np.nansum(amounts, axis=1)
    return np.asarray(np.minimum(1.0, limit / np.maximum(total, 1e-12)), dtype=np.float32)
