"""Pseudo-relevance feedback in the space of the encoder."""

from __future__ import annotations

import numpy as np

from r4t.catalog.index import Index
from r4t.methods.base import QueryBatch
from r4t.methods.baselines import plain_items
from r4t.types import Floats, RetrievedSets

FEEDBACK_ITEMS = 10


class Rocchio:
    """The k x n items nearest to (1 - weight) * query + weight * mean of its 10 nearest items (Rocchio 1971).

    No item counts as irrelevant, since nobody judged one.
    """

    name = "prf"

    def __init__(self, index: Index, vectors: Floats, k: int, n: int, weight: float) -> None:
        self.index, self.vectors, self.k, self.n, self.weight = index, vectors, k, n, weight

    def retrieve(self, queries: QueryBatch, seed: int) -> RetrievedSets:  # noqa: ARG002 (the protocol's signature)
        return RetrievedSets(items=plain_items(self.index, self.expanded(queries.vectors), self.k, self.n))

    def expanded(self, query_vectors: Floats) -> Floats:
        """[B, d] unit vectors of the queries after one round of feedback."""
        _, rows = self.index.search(query_vectors, FEEDBACK_ITEMS)
        moved = (1 - self.weight) * query_vectors + self.weight * self.vectors[rows].mean(axis=1)
        return (moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)).astype(np.float32)
