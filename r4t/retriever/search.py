"""Rows in, sets of items out: every row finds its nearest items, and each set takes k different ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from r4t.retriever.choose import choose
from r4t.retriever.items import ItemIndex
from r4t.types import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class SetItem:
    """One item of a set."""

    item_id: str
    name: str
    score: float
    """Cosine of the item with the row that found it."""
    row: int
    """Which of the set's L rows that is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSet:
    """What is retrieved for one query."""

    items: tuple[SetItem, ...]
    """All different, the rows' nearest items first."""
    rows: Floats
    """[L, d] the unit directions that were searched."""


def search_sets(index: ItemIndex, rows: Floats, k: int) -> list[ItemSet]:
    """Rows [B, L, d] -> B sets of k different items, or of all items where there are fewer.

    Every row first finds the ceil(k / L) nearest items; sets that come out short search deeper, up to k items a row.
    """
    batch, count, dim = rows.shape
    wanted = min(k, index.size)
    depth = max(1, -(-wanted // count))
    sets: list[ItemSet | None] = [None] * batch
    left = np.arange(batch)
    while len(left):
        scores, found = index.nearest(rows[left].reshape(-1, dim), depth)
        last = depth >= wanted
        for query, its_scores, its_items in zip(
            left.tolist(), scores.reshape(len(left), count, -1), found.reshape(len(left), count, -1), strict=True
        ):
            items = _set(index, its_scores, its_items, wanted)
            if last or len(items) == wanted:
                sets[query] = ItemSet(items=items, rows=rows[query])
        left = np.array([query for query in left.tolist() if sets[query] is None], dtype=np.int64)
        depth = min(2 * depth, wanted)
    return [found for found in sets if found is not None]


def _set(index: ItemIndex, scores: Floats, items: Ints, wanted: int) -> tuple[SetItem, ...]:
    """scores, items: [L, n] of one query; FAISS fills up with -1 where it finds no more."""
    found = [[item for item in row if item >= 0] for row in items.tolist()]
    return tuple(
        SetItem(item_id=index.item_id(item), name=index.name(item), score=float(scores[row, rank]), row=row)
        for item, row, rank in choose(found, wanted)
    )
