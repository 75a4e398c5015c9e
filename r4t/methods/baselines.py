"""Methods without a language model or a trained retriever: the floors and the peers that R4T must be read against."""

from __future__ import annotations

import numpy as np

from r4t.catalog.dataset import Dataset
from r4t.catalog.index import Index
from r4t.methods.base import QueryBatch, arrange, check_depth
from r4t.mmr import MMR_POOL, mmr_select
from r4t.types import Floats, Ints, RetrievedSets


class Random:
    """k x n different items drawn uniformly: the floor of every metric."""

    name = "random"

    def __init__(self, n_items: int, k: int, n: int) -> None:
        check_depth(k, n, n_items)
        self.n_items, self.k, self.n = n_items, k, n

    def retrieve(self, queries: QueryBatch, seed: int) -> RetrievedSets:
        total = self.k * self.n
        draws = [
            np.random.default_rng((seed, int(row))).choice(self.n_items, total, replace=False) for row in queries.rows
        ]
        return RetrievedSets(items=arrange(np.asarray(draws, dtype=np.int64).reshape(-1, total), self.k))


class Popular:
    """The same k x n items for every query, most popular first (see `popularity`)."""

    name = "popular"

    def __init__(self, popularity: Floats, k: int, n: int) -> None:
        check_depth(k, n, len(popularity))
        self.ranked = np.argsort(-popularity, kind="stable")[: k * n].astype(np.int64)
        self.k = k

    def retrieve(self, queries: QueryBatch, seed: int) -> RetrievedSets:  # noqa: ARG002 (the protocol's signature)
        return RetrievedSets(items=arrange(np.tile(self.ranked, (len(queries), 1)), self.k))


class NoFanout:
    """The k x n items nearest to the plain query."""

    name = "no_fanout"

    def __init__(self, index: Index, k: int, n: int) -> None:
        self.index, self.k, self.n = index, k, n

    def retrieve(self, queries: QueryBatch, seed: int) -> RetrievedSets:  # noqa: ARG002
        return RetrievedSets(items=plain_items(self.index, queries.vectors, self.k, self.n))


class MMR:
    """Maximal marginal relevance over the encoder: greedy lambda * cos(q, c) - (1 - lambda) * max cos(c, chosen).

    The pool is the query's 200 nearest items. With n > 1 the k chosen items are directions: each brings its n nearest.
    """

    name = "mmr"

    def __init__(self, index: Index, vectors: Floats, k: int, n: int, trade_off: float) -> None:
        self.index, self.vectors, self.k, self.n, self.trade_off = index, vectors, k, n, trade_off
        self.pool = min(max(MMR_POOL, k), len(vectors))

    def retrieve(self, queries: QueryBatch, seed: int) -> RetrievedSets:  # noqa: ARG002
        scores, rows = self.index.search(queries.vectors, self.pool)
        chosen = mmr_select(scores, self.vectors[rows], self.k, self.trade_off)
        items = np.take_along_axis(rows, chosen, axis=1)
        if self.n == 1:
            return RetrievedSets(items=items[:, :, None])
        _, nearest = self.index.search(self.vectors[items.reshape(-1)], self.n)
        return RetrievedSets(items=nearest.reshape(*items.shape, self.n))


def plain_items(index: Index, query_vectors: Floats, k: int, n: int) -> Ints:
    """[B, k, n] items nearest to the plain query; the shown column holds the k nearest."""
    check_depth(k, n, index.size)
    _, rows = index.search(query_vectors, k * n)
    return arrange(rows, k)


def popularity(dataset: Dataset, index: Index, k: int) -> Floats:
    """[N] how popular each item is, from the training queries alone.

    With reference sets (WSCR): the share of training sets that hold the item. Without (OAR): how often the item is
    among the k nearest of a plain training query, which is what a log of unassisted searches would count.
    """
    train = dataset.split("train")
    if any(dataset.queries[row].references for row in train):
        return dataset.item_frequencies()
    if len(train) == 0:
        raise ValueError("popularity needs training queries: the dataset has none")
    _, rows = index.search(dataset.query_vectors[train], k)
    return np.bincount(rows.reshape(-1), minlength=len(dataset.item_vectors)).astype(np.float32) / np.float32(
        len(train)
    )
