"""Exact nearest-neighbour search over the item database (paper section 1.1: the frozen retriever R)."""

from __future__ import annotations

import numpy as np
import torch

from r4t.catalog.index.candidates import candidates
from r4t.catalog.index.contract import best_of, checked_queries, checked_vectors, exact_scores
from r4t.catalog.index.products import products
from r4t.types import Bools, Floats, Ints

QUERIES = 8192  # searched at a time at most
FOUND = 1 << 17  # items wanted of them together at most
CPU = torch.device("cpu")


class ExactIndex:
    """Inner-product search over [N, d] unit vectors that misses nothing: see `Index` for the contract.

    Fast products rule out all but a few items of a query, with a bound on their error; the rest are scored exactly.
    So `device` changes the speed and never the result. Items with identical vectors share one entry of the products.
    Raises UserError for an empty database or vectors that are not finite.
    """

    def __init__(self, vectors: Floats, device: torch.device = CPU) -> None:
        self._vectors = checked_vectors(vectors)
        self.dim = self._vectors.shape[1]
        first, entry_of = _distinct(self._vectors)
        # In a random order, so that neighbours in the catalogue, which are often alike, are not looked at together.
        order = np.random.default_rng(0).permutation(len(first))
        self._entry_of = np.argsort(order)[entry_of]  # [N] entry of each row; -1 once removed
        self._products = products(self._vectors[first[order]], device)
        self._list_members()

    def search(self, queries: Floats, n: int) -> tuple[Floats, Ints]:
        queries = checked_queries(queries, self.dim, n)
        n = min(n, self.size)
        if len(queries) == 0 or n == 0:
            return np.zeros((len(queries), n), np.float32), np.zeros((len(queries), n), np.int64)
        step = max(1, min(QUERIES, FOUND // n))
        found = [self._search(queries[start : start + step], n) for start in range(0, len(queries), step)]
        return np.concatenate([scores for scores, _ in found]), np.concatenate([rows for _, rows in found])

    def add(self, vectors: Floats) -> Ints:
        """Stores further items [a, d] and returns their rows, which follow on the last one ever used."""
        vectors = checked_vectors(vectors, self.dim)
        rows = np.arange(len(self._vectors), len(self._vectors) + len(vectors))
        first, own = _distinct(vectors)
        self._entry_of = np.concatenate([self._entry_of, len(self._counts) + own])
        self._vectors = np.concatenate([self._vectors, vectors])
        self._products.append(vectors[first])
        self._list_members()
        return rows

    def remove(self, rows: Ints) -> None:
        """Takes the items at `rows` out. Raises ValueError, before any is, for a row that holds no item."""
        self._entry_of[checked_rows(rows, self._entry_of >= 0)] = -1
        live = self._entry_of >= 0
        kept, self._entry_of[live] = np.unique(self._entry_of[live], return_inverse=True)
        self._products.keep(torch.from_numpy(kept))
        self._list_members()

    def _list_members(self) -> None:
        """The rows of entry e, ascending: `_counts[e]` of `_members` from `_starts[e]` on."""
        live = np.flatnonzero(self._entry_of >= 0)
        entries = self._entry_of[live]
        self.size = len(live)
        self._members = live[np.argsort(entries, kind="stable")]
        self._counts = np.bincount(entries)
        self._starts = np.cumsum(self._counts) - self._counts

    def _search(self, queries: Floats, n: int) -> tuple[Floats, Ints]:
        block, window = self._products.of(queries)
        which, entries = candidates(block, window, len(self._counts), n)
        scores = exact_scores(queries, self._vectors, which, self._members[self._starts[entries]])
        copies = np.minimum(self._counts[entries], n)
        pair = np.repeat(np.arange(len(entries)), copies)
        turn = np.arange(len(pair)) - np.repeat(np.cumsum(copies) - copies, copies)
        rows = self._members[self._starts[entries][pair] + turn]
        return best_of(which[pair], scores[pair], rows, len(queries), n)


def checked_rows(rows: Ints, live: Bools) -> Ints:
    """`rows` as int64. Raises ValueError for one outside of [0, len(live)) or that is not live."""
    rows = np.asarray(rows, dtype=np.int64).reshape(-1)
    known = (rows >= 0) & (rows < len(live))
    unknown = rows[~known] if not known.all() else rows[~live[rows]]
    if unknown.size:
        raise ValueError(f"{unknown.size} rows hold no item (first: {unknown[0]})")
    return rows


def _distinct(vectors: Floats) -> tuple[Ints, Ints]:
    """First row [U] of every distinct vector, in order of appearance, and the place [N] of each row's vector there."""
    seen: dict[bytes, int] = {}
    place = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in vectors])
    first = np.zeros(len(seen), dtype=np.int64)
    first[place[::-1]] = np.arange(len(place))[::-1]
    return first, place
