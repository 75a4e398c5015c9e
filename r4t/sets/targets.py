"""How a fan-out becomes the L rows of a training set (paper section 2.4; Table 3: k = 10, L = 12)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from r4t.errors import UserError
from r4t.types import Ints


def check_rows(rows: int, k: int) -> None:
    """Raises UserError unless L rows can hold k sub-queries and at most one filler for each."""
    if not k <= rows <= 2 * k:
        raise UserError(
            f"retriever.rows = {rows} does not fit fanout.k = {k}: a set holds every sub-query and at most one filler"
            f" for each; set retriever.rows between {k} and {2 * k}"
        )


def compose_rows(found: Ints, order: Ints, rows: int) -> Ints:
    """[B, L] rows of B sets from what their k sub-queries found, `found` [B, k, n], the nearest first.

    First the nearest result of every sub-query, then the next one of the first L - k in `order` [B, k]. At depth n = 1
    there is no next result and the sub-query's own is repeated, which is the rule where rows are the sub-queries' own
    vectors.
    """
    _, k, depth = found.shape
    fillers = np.take_along_axis(found[:, :, min(1, depth - 1)], order[:, : rows - k], axis=1)
    return np.concatenate([found[:, :, 0], fillers], axis=1)


def filler_order(seed: int, query: Ints, sample: Ints, k: int) -> Ints:
    """[B, k] random orders of k sub-queries. Each depends on the seed, its query and its sample alone.

    A hash of the three in place of a generator for each answer, which would cost more than all else here.
    """
    key = _mixed(np.full(len(query), seed, dtype=np.uint64))
    key = _mixed(_mixed(key ^ query.astype(np.uint64)) ^ sample.astype(np.uint64))
    return np.argsort(_mixed(key[:, None] ^ np.arange(k, dtype=np.uint64)), axis=1, kind="stable")


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of SplitMix64 (Steele et al., 2014): a bijection of 64 bits that leaves no pattern."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
