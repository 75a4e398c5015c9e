"""Approximate search with FAISS: it may miss items, but what it finds is scored exactly."""

from __future__ import annotations

import math

import faiss
import numpy as np

from r4t.catalog.index.contract import Stored, best_of, checked_queries, checked_vectors, exact_scores
from r4t.catalog.index.exact import checked_rows
from r4t.config import Index as Settings
from r4t.errors import UserError
from r4t.types import Floats, Ints

BITS = 8  # of one code of a product quantiser


class AnnIndex:
    """A FAISS index over [N, d] unit vectors, with the contract of `Index` except that items may be missed.

    `rerank` x n candidates are scored on `vectors`, which may be memory-mapped and of a shorter format.
    """

    def __init__(self, vectors: Stored, found: faiss.Index, settings: Settings, *, writable: bool = True) -> None:
        self.settings = settings
        self.faiss = found
        self.dim = found.d
        self._vectors = vectors
        self._live = np.ones(len(vectors), dtype=bool)
        self._writable = writable
        self.size = len(vectors)

    def search(self, queries: Floats, n: int) -> tuple[Floats, Ints]:
        queries = checked_queries(queries, self.dim, n)
        n = min(n, self.size)
        if len(queries) == 0 or n == 0:
            return np.zeros((len(queries), n), np.float32), np.zeros((len(queries), n), np.int64)
        wanted = min(n * self.settings.rerank, self.size)
        _, rows = self.faiss.search(queries, wanted, params=self._parameters(wanted))
        enough = (rows >= 0).sum(axis=1) >= n
        scores = np.empty((len(queries), n), np.float32)
        best = np.empty((len(queries), n), np.int64)
        which, place = np.nonzero(rows[enough] >= 0)
        scores[enough], best[enough] = self._rank(queries[enough], which, rows[enough][which, place], n)
        everything = np.flatnonzero(self._live)
        for short in np.flatnonzero(~enough):  # too few items in the cells searched
            scores[short], best[short] = self._rank(queries[[short]], np.zeros_like(everything), everything, n)
        return scores, best

    def add(self, vectors: Floats) -> Ints:
        """Stores further items [a, d] and returns their rows. Cells and codes stay as they were trained.

        Raises UserError for an index that was opened from a file without `writable`.
        """
        if not self._writable:
            raise UserError("the index was opened read-only from its file: open it with writable=True to add items")
        vectors = checked_vectors(vectors, self.dim)
        rows = np.arange(len(self._vectors), len(self._vectors) + len(vectors))
        self.faiss.add(vectors)
        self._vectors = np.concatenate([self._vectors, vectors])
        self._live = np.concatenate([self._live, np.ones(len(vectors), dtype=bool)])
        self.size += len(vectors)
        return rows

    def remove(self, rows: Ints) -> None:
        """Hides the items at `rows` from every later search. Raises ValueError for a row that holds no item."""
        self._live[checked_rows(rows, self._live)] = False
        self.size = int(self._live.sum())

    def _rank(self, queries: Floats, which: Ints, rows: Ints, n: int) -> tuple[Floats, Ints]:
        return best_of(which, exact_scores(queries, self._vectors, which, rows), rows, len(queries), n)

    def _parameters(self, wanted: int) -> faiss.SearchParameters:
        self._bits = np.packbits(self._live, bitorder="little")  # the selector only borrows them
        hidden = self.size < len(self._live)
        chosen = faiss.IDSelectorBitmap(len(self._live), faiss.swig_ptr(self._bits)) if hidden else None
        if self.settings.kind == "hnsw":
            ef = max(self.settings.ef, wanted)
            return faiss.SearchParametersHNSW(efSearch=ef, sel=chosen)  # type: ignore[attr-defined]
        return faiss.SearchParametersIVF(nprobe=self.settings.probes, sel=chosen)  # type: ignore[call-arg]


def train(vectors: Floats, settings: Settings) -> AnnIndex:
    """Builds the index that `settings` describe over [N, d]. Raises UserError when the vectors do not fit them."""
    vectors = checked_vectors(vectors)
    found = _empty(len(vectors), vectors.shape[1], settings)
    found.train(vectors)
    found.add(vectors)
    return AnnIndex(vectors, found, settings)


def cells(items: int, settings: Settings) -> int:
    """Cells of an inverted file over `items` items."""
    return min(items, settings.lists or math.ceil(4 * math.sqrt(items)))


def _empty(items: int, dim: int, settings: Settings) -> faiss.Index:
    metric = faiss.METRIC_INNER_PRODUCT
    if settings.kind == "hnsw":
        graph = faiss.IndexHNSWFlat(dim, settings.m, metric)
        graph.hnsw.efConstruction = settings.ef
        return graph
    lists = cells(items, settings)
    quantizer = faiss.IndexFlatIP(dim)
    if settings.kind == "ivf_pq":
        if dim % settings.pq_bytes:
            raise UserError(f"index.pq_bytes = {settings.pq_bytes} does not divide encoder.dim = {dim}: use a divisor")
        if items < 2**BITS:
            raise UserError(f"{items} items cannot train index.kind 'ivf_pq', which needs {2**BITS}: use 'exact'")
        inverted: faiss.IndexIVF = faiss.IndexIVFPQ(quantizer, dim, lists, settings.pq_bytes, BITS, metric)
    else:
        inverted = faiss.IndexIVFFlat(quantizer, dim, lists, metric)
    inverted.cp.spherical = True  # cells of unit vectors have centres of unit length
    inverted.cp.min_points_per_centroid = 1  # small catalogues are no mistake
    return inverted
