"""Search over parts of a database as over the whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from r4t.catalog.index.contract import Index, best_of
from r4t.catalog.index.exact import ExactIndex
from r4t.errors import UserError
from r4t.types import Floats, Ints

Found = tuple[Floats, Ints]


def split(items: int, shards: int) -> list[tuple[int, int]]:
    """First and last (exclusive) row of each of `shards` parts, which differ by one item in length at most.

    Raises UserError for more shards than items.
    """
    if shards > items:
        raise UserError(f"index.shards = {shards} for {items} items: lower it to {items} at most")
    bounds = [items * shard // shards for shard in range(shards + 1)]
    return list(itertools.pairwise(bounds))


def merge(found: Sequence[Found], offsets: Sequence[int], n: int) -> Found:
    """The n best [m, n] of what the parts found ([m, n_part] each), whose row 0 is row `offsets` of the whole."""
    scores = np.concatenate([scores for scores, _ in found], axis=1)
    rows = np.concatenate([rows + offset for (_, rows), offset in zip(found, offsets, strict=True)], axis=1)
    m, width = scores.shape
    which = np.repeat(np.arange(m), width)
    return best_of(which, scores.reshape(-1), rows.reshape(-1), m, min(n, width))


class ShardedIndex:
    """Rows split into consecutive parts, each searched on its own. Exact parts find what one exact index does, bit
    for bit, since an item's score depends on no other item.

    `ask` runs one search on every part and may do so elsewhere; by default they run here, one after another.
    """

    def __init__(self, sizes: Sequence[int], ask: Callable[[Floats, int], Sequence[Found]]) -> None:
        self.offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64).tolist()
        self.size = int(sum(sizes))
        self._ask = ask

    @classmethod
    def of(cls, vectors: Floats, shards: int) -> ShardedIndex:
        """Exact parts of [N, d] vectors in this process."""
        parts: list[Index] = [ExactIndex(vectors[first:last]) for first, last in split(len(vectors), shards)]
        return cls([part.size for part in parts], lambda queries, n: [part.search(queries, n) for part in parts])

    def search(self, queries: Floats, n: int) -> Found:
        return merge(self._ask(queries, n), self.offsets, n)
