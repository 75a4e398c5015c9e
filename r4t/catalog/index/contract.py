"""What every index of items promises, and the checks that they share."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from r4t.errors import UserError
from r4t.types import Floats, Ints

Stored = NDArray[np.float32] | NDArray[np.float16]
"""[N, d] vectors as they are kept, perhaps in a memory-mapped file."""
PAIRS = 4096  # scored at a time: their vectors fit the cache


class Index(Protocol):
    """Inner-product search over unit vectors; the row numbers of the items never change."""

    size: int
    """Items that can be found."""

    def search(self, queries: Floats, n: int) -> tuple[Floats, Ints]:
        """[m, d] queries -> scores and rows [m, min(n, size)], best first, equal scores in the order of their rows.

        Scores are those of `exact_scores`, whatever the index. Raises ValueError for another width, values that are
        not finite, or n below 1.
        """
        ...


def checked_vectors(vectors: Floats, dim: int | None = None) -> Floats:
    """[N, d] as contiguous float32. Raises UserError for no items, values that are not finite, or another width."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise UserError(f"the database has shape {vectors.shape}: it needs at least one item; check data.items")
    if dim is not None and vectors.shape[1] != dim:
        raise UserError(f"the new items have {vectors.shape[1]} dimensions, the index {dim}: encode them as the others")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if bad.size:
        raise UserError(
            f"{bad.size} of {len(vectors)} item vectors are NaN or infinite (first: row {bad[0]}):"
            " delete the run's prepare folder and run `r4t run CONFIG --stage prepare` again"
        )
    return vectors


def checked_queries(queries: Floats, dim: int, n: int) -> Floats:
    """[m, dim] as contiguous float32. Raises ValueError as `Index.search` says."""
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise ValueError(f"queries have shape {queries.shape}, the index needs [m, {dim}]")
    if n < 1:
        raise ValueError(f"n is {n}, it must be at least 1")
    if not np.isfinite(queries).all():
        raise ValueError("queries hold NaN or infinite values")
    return queries


def exact_scores(queries: Floats, vectors: Stored, which: Ints, rows: Ints) -> Floats:
    """[p] inner products of `queries[which]` and `vectors[rows]`, summed in float64 and rounded once.

    One pair's score depends on that pair alone, so two searches that look at it agree to the last bit.
    """
    scores = np.empty(len(which), dtype=np.float32)
    for start in range(0, len(which), PAIRS):
        part = slice(start, start + PAIRS)
        left, right = queries[which[part]].astype(np.float64), vectors[rows[part]].astype(np.float64)
        scores[part] = np.einsum("pd,pd->p", left, right)
    return scores


def best_of(which: Ints, scores: Floats, rows: Ints, m: int, n: int) -> tuple[Floats, Ints]:
    """The n best of each of m queries, [m, n] each, from pairs [p] in any order that hold n or more of every query."""
    order = np.lexsort((rows, -scores, which))
    which, scores, rows = which[order], scores[order], rows[order]
    start = np.searchsorted(which, np.arange(m))
    kept = np.arange(len(which)) - start[which] < n
    return scores[kept].reshape(m, n), rows[kept].reshape(m, n)
