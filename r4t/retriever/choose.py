"""From what each of L rows found to one set of k different items."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

Item = TypeVar("Item", bound=Hashable)


def choose(found: Sequence[Sequence[Item]], k: int) -> list[tuple[Item, int, int]]:
    """The set of one query: at most k of (item, row, rank), every item once.

    found: per row the items it found, best first, as any vector store returns them. First every row gives its nearest
    item, in the order of the rows, as the evaluation of a run does; where these are fewer than k different ones, every
    row gives its second, then its third. Fewer than k come back only where `found` holds no more.
    """
    chosen: dict[Item, tuple[int, int]] = {}
    for rank in range(max(map(len, found), default=0)):
        for row, items in enumerate(found):
            if len(chosen) == k:
                break
            if rank < len(items):
                chosen.setdefault(items[rank], (row, rank))
    return [(item, row, rank) for item, (row, rank) in chosen.items()]
