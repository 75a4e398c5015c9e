"""What a set-level objective may look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from r4t.types import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFacts:
    """What the catalogue says of its N items beside their vectors. None where it says nothing."""

    kinds: Ints | None = None
    """[N] category codes 0 ... C-1, -1 for an item without one."""
    categories: tuple[str, ...] = ()
    """[C] the categories behind the codes, sorted."""
    novelty: Floats | None = None
    """[N] share of the items that are more popular: 0 for the most popular one, near 1 for the least."""
    satisfied: Floats | None = None
    """[N] 1 where the item meets every constraint on single items, else 0."""
    budgets: tuple[tuple[Floats, float], ...] = ()
    """Amounts [N] and the most that a set may sum up to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetInputs:
    """B sets of k sub-queries with n items each."""

    query: Floats
    """[B, d]"""
    directions: Floats
    """[B, k, d] sub-query embeddings (or a retriever's generated rows)."""
    items: Ints
    """[B, k, n] rows of the item table, nearest first."""
    top_cosine: Floats
    """[B, k] cosine of each direction with its nearest item."""
    item_vectors: Floats
    """[N, d]"""
    references: Sequence[Sequence[int]] | None = None
    """WSCR: rows of the reference items of each query."""
    item_weights: Floats | None = None
    """[N] coverage weights; None means 1 each."""
    facts: ItemFacts = field(default_factory=ItemFacts)

    @property
    def shown(self) -> Ints:
        """[B, k] the representative item of each sub-query."""
        return self.items[:, :, 0]

    @property
    def content(self) -> Floats:
        """[B, k, d] vectors of the shown items."""
        return self.item_vectors[self.shown]

    def without(self, row: int) -> SetInputs:
        """The sets without sub-query number `row`. Needs k >= 2."""
        return replace(
            self,
            directions=np.delete(self.directions, row, axis=1),
            items=np.delete(self.items, row, axis=1),
            top_cosine=np.delete(self.top_cosine, row, axis=1),
        )
