"""Exact nearest-neighbour search over the fixed database (paper section 1.1: the frozen retriever R)."""

from __future__ import annotations

import faiss
import numpy as np

from r4t.errors import UserError
from r4t.types import Floats, Ints

# Process-wide settings of FAISS. Left alone, 1.15 computes batches below about 1,000 queries without matrix products,
# at a fraction of the speed; and larger blocks of queries than these fall out of the cache.
faiss.cvar.distance_compute_blas_threshold = 20
faiss.cvar.distance_compute_blas_query_bs = 1024


class ExactIndex:
    """Inner-product search over [N, d] unit vectors. Equal scores come in the order of their rows.

    Items with identical vectors share one entry of the FAISS index, so that the order among them never depends on
    how FAISS blocks its products. Raises UserError for an empty database or vectors that are not finite.
    """

    def __init__(self, vectors: Floats) -> None:
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or 0 in vectors.shape:
            raise UserError(f"the database has shape {vectors.shape}: it needs at least one item; check data.items")
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if bad.size:
            raise UserError(
                f"{bad.size} of {len(vectors)} item vectors are NaN or infinite (first: row {bad[0]}):"
                " delete the run's prepare folder and run `r4t run CONFIG --stage prepare` again"
            )
        self.size, self.dim = vectors.shape
        self._members = _groups_of_equal_rows(vectors)
        self._flat = faiss.IndexFlatIP(self.dim)
        self._flat.add(vectors[self._members[:, 0]])

    def search(self, queries: Floats, n: int) -> tuple[Floats, Ints]:
        """[m, d] queries -> scores and rows [m, min(n, N)], best first.

        Raises ValueError for another width, values that are not finite, or n below 1.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ValueError(f"queries have shape {queries.shape}, the index needs [m, {self.dim}]")
        if n < 1:
            raise ValueError(f"n is {n}, it must be at least 1")
        if not np.isfinite(queries).all():
            raise ValueError("queries hold NaN or infinite values")
        n = min(n, self.size)
        if len(queries) == 0:
            return np.zeros((0, n), np.float32), np.zeros((0, n), np.int64)
        scores, entries = self._flat.search(queries, min(n, len(self._members)))
        order = np.lexsort((self._members[entries, 0], -scores), axis=1)
        scores = np.take_along_axis(scores, order, axis=1)
        rows = self._members[np.take_along_axis(entries, order, axis=1)]
        return _first_members(scores, rows[:, :, :n], n)


def _groups_of_equal_rows(vectors: Floats) -> Ints:
    """[U, g] row numbers: one line per distinct vector in order of appearance, ascending, filled up with -1."""
    groups: dict[bytes, int] = {}
    group = np.array([groups.setdefault(row.tobytes(), len(groups)) for row in vectors])
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    place = np.arange(len(vectors)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    members = np.full((len(groups), sizes.max()), -1, dtype=np.int64)
    members[group[order], place] = order
    return members


def _first_members(scores: Floats, rows: Ints, n: int) -> tuple[Floats, Ints]:
    """Spreads groups [m, u, g] into single rows [m, n], keeping the order and leaving out the filling."""
    if rows.shape[2] == 1:
        return scores[:, :n], rows[:, :n, 0]
    m, _, width = rows.shape
    flat = rows.reshape(m, -1)
    kept = np.argsort(flat < 0, axis=1, kind="stable")[:, :n]
    spread = np.repeat(scores, width, axis=1)
    return np.take_along_axis(spread, kept, axis=1), np.take_along_axis(flat, kept, axis=1)
