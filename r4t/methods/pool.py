"""Rivals that choose k of the items nearest to the query: marginal relevance, a determinantal process, facets."""

from __future__ import annotations

from abc import ABC, abstractmethod

import faiss
import numpy as np

from r4t.catalog.index import Index
from r4t.methods.base import QueryBatch
from r4t.mmr import MMR_POOL, mmr_select
from r4t.types import Floats, Ints, RetrievedSets

FACET_POOL = 1000
FACET_ROUNDS = 20
CHUNK = 64  # queries whose pools stand in memory together
SMALLEST = 1e-10  # volume that is left where an item repeats the chosen ones


class FromPool(ABC):
    """Chooses k of the query's nearest items. With n > 1 the chosen are directions: each brings its n nearest."""

    name: str
    pool_items = MMR_POOL

    def __init__(self, index: Index, vectors: Floats, k: int, n: int) -> None:
        if k > len(vectors):
            raise ValueError(f"a set of k = {k} items needs as many in the database, which has {len(vectors)}")
        self.index, self.vectors, self.k, self.n = index, vectors, k, n
        self.pool = min(max(self.pool_items, k), len(vectors))

    @abstractmethod
    def choose(self, relevance: Floats, candidates: Floats) -> Ints:
        """Different positions [B, k] out of pools with relevance [B, P], descending, and vectors [B, P, d]."""

    def retrieve(self, queries: QueryBatch, seed: int) -> RetrievedSets:  # noqa: ARG002 (the protocol's signature)
        parts = [queries.vectors[start : start + CHUNK] for start in range(0, len(queries), CHUNK)]
        items = np.concatenate([self._chosen(part) for part in parts])
        if self.n == 1:
            return RetrievedSets(items=items[:, :, None])
        _, nearest = self.index.search(self.vectors[items.reshape(-1)], self.n)
        return RetrievedSets(items=nearest.reshape(*items.shape, self.n))

    def _chosen(self, query_vectors: Floats) -> Ints:
        relevance, rows = self.index.search(query_vectors, self.pool)
        return np.take_along_axis(rows, self.choose(relevance, self.vectors[rows]), axis=1)


class MMR(FromPool):
    """Maximal marginal relevance over the encoder: greedy lambda * cos(q, c) - (1 - lambda) * max cos(c, chosen)."""

    name = "mmr"

    def __init__(self, index: Index, vectors: Floats, k: int, n: int, trade_off: float) -> None:
        super().__init__(index, vectors, k, n)
        self.trade_off = trade_off

    def choose(self, relevance: Floats, candidates: Floats) -> Ints:
        return mmr_select(relevance, candidates, self.k, self.trade_off)


class DPP(FromPool):
    """Greedy most probable set of a determinantal point process (Chen et al. 2018, arXiv 1709.05135).

    log P(Y) = quality * sum cos(q, c) + (1 - quality) * log det S_Y up to a constant, S the cosines of the items.
    """

    name = "dpp"

    def __init__(self, index: Index, vectors: Floats, k: int, n: int, quality: float) -> None:
        if not 0 <= quality < 1:
            raise ValueError(
                f"the quality weight is {quality:g}, it must be in [0, 1): at 1 nothing asks for diversity"
            )
        super().__init__(index, vectors, k, n)
        self.quality = quality

    def choose(self, relevance: Floats, candidates: Floats) -> Ints:
        return dpp_select(relevance, candidates, self.k, self.quality)


class Facets(FromPool):
    """Spherical k-means over the 1,000 nearest items; each of the k clusters shows its item nearest to the query."""

    name = "kmeans"
    pool_items = FACET_POOL

    def choose(self, relevance: Floats, candidates: Floats) -> Ints:  # noqa: ARG002 (pools come in its order)
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)  # a pool is too small to share: threads wait ten times longer than one works
        try:
            return np.stack([_first_of_each(_clusters(pool, self.k), self.k) for pool in candidates])
        finally:
            faiss.omp_set_num_threads(threads)


def dpp_select(relevance: Floats, candidates: Floats, k: int, quality: float) -> Ints:
    """Positions [B, k] of greedy MAP under the kernel of `DPP`, from relevance [B, P] and unit candidates [B, P, d].

    Each step takes the item that raises the log-determinant most; a Cholesky factor grows by one column a step
    (Chen et al. 2018, Algorithm 1). Ties go to the first, and repeated items come last.
    """
    batch = np.arange(len(relevance))
    available = np.ones(relevance.shape, dtype=bool)
    left = np.ones(relevance.shape)  # squared distance to the span of the chosen
    factor = np.zeros((*relevance.shape, k))
    chosen = np.empty((len(relevance), k), dtype=np.int64)
    bonus = quality / (1 - quality) * relevance.astype(np.float64)  # 2 ln q of the kernel diag(q) S diag(q)
    for step in range(k):
        gain = bonus + np.log(np.maximum(left, SMALLEST))
        best = np.where(available, gain, -np.inf).argmax(axis=1)
        chosen[:, step] = best
        available[batch, best] = False
        similarity = np.einsum("bpd,bd->bp", candidates, candidates[batch, best])
        known = np.einsum("bpt,bt->bp", factor[:, :, :step], factor[batch, best, :step])
        column = (similarity - known) / np.sqrt(np.maximum(left[batch, best], SMALLEST))[:, None]
        factor[:, :, step] = column
        left = left - column**2
    return chosen


def _clusters(pool: Floats, k: int) -> Ints:
    """[P] number of the cluster of each vector of pool [P, d]."""
    means = faiss.Kmeans(
        pool.shape[1], k, niter=FACET_ROUNDS, seed=1, spherical=True, min_points_per_centroid=1,
        max_points_per_centroid=len(pool),
    )  # fmt: skip
    means.train(pool)
    return means.index.search(pool, 1)[1][:, 0]


def _first_of_each(labels: Ints, k: int) -> Ints:
    """[k] first position of every label, ascending; where labels are fewer, the first other positions too."""
    first = np.sort(np.unique(labels, return_index=True)[1])
    others = np.setdiff1d(np.arange(len(labels)), first)[: k - len(first)]
    return np.sort(np.concatenate([first, others]))
