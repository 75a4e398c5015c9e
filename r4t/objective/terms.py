"""Set-level reward terms as pure functions over a batch of sets (paper Eq. 1-5).

Shapes: B sets, k sub-queries, n items per sub-query, d width, N items. All vectors have unit length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from r4t.types import Floats, Ints

VendiNorm = Literal["by_k", "minus1_over_kminus1", "raw"]


def vendi(x: Floats) -> Floats:
    """Vendi Score of order 1 with the cosine kernel: exp of the entropy of the eigenvalues of X X^T / k.

    `x` is [..., k, d] with unit rows; the result [...] lies in [1, min(k, d)] (Friedman & Dieng; paper Eq. 2).
    """
    k = x.shape[-2]
    kernel = np.matmul(x, np.swapaxes(x, -1, -2), dtype=np.float64) / k
    values = np.clip(np.linalg.eigvalsh(kernel), 0.0, None)
    entropy = -np.sum(values * np.log(np.where(values > 1e-12, values, 1.0)), axis=-1)
    return np.exp(entropy).astype(np.float32)


def normalise_vendi(score: Floats, k: int, how: VendiNorm) -> Floats:
    """Rescales a Vendi Score of k rows: `by_k` to (0, 1], `minus1_over_kminus1` to [0, 1], `raw` leaves [1, k]."""
    if how == "by_k":
        return np.asarray(score / k, dtype=np.float32)
    if how == "minus1_over_kminus1":
        return np.asarray((score - 1.0) / max(k - 1, 1), dtype=np.float32)
    return score


def vendi_without(x: Floats) -> Floats:
    """[..., k]: Vendi Score of the k-1 other rows, for each row of `x` [..., k, d]. Needs k >= 2."""
    k = x.shape[-2]
    if k < 2:
        raise ValueError("leave-one-out diversity needs at least two rows")
    others = np.stack([np.delete(np.arange(k), i) for i in range(k)])  # [k, k-1]
    return vendi(x[..., others, :])


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
