"""Metrics of retrieved sets as pure functions (paper section 3.1, App. B), and how they are summarised.

Shapes: B queries, k rows of a set, n items per row, d width, R independent runs. A value that does not apply to a
query is NaN and leaves the summary; a metric that applies to no query has no summary at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r4t.objective.terms import coverage
from r4t.objective.vendi import vendi
from r4t.types import Floats, Ints

PAPER_POOL, PAPER_ITEMS = 5_000, 142_472
"""Recall@5K and Hit@5K look at so many of so many items (App. B.2)."""

PerQuery = NDArray[np.floating[Any]]
"""[B] one value per query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Mean over n queries, standard deviation over them (population), and the standard error of the mean."""

    mean: float
    std: float
    stderr: float
    n: int


def summarise(values: PerQuery) -> Cell | None:
    """Summary of per-query values [B], NaN left out; None when nothing is left."""
    present = np.asarray(values, dtype=np.float64)
    present = present[~np.isnan(present)]
    if present.size == 0:
        return None
    error = present.std(ddof=1) / np.sqrt(present.size) if present.size > 1 else 0.0
    return Cell(mean=float(present.mean()), std=float(present.std()), stderr=float(error), n=int(present.size))


def paired_difference(a: PerQuery, b: PerQuery) -> Cell | None:
    """Summary of `a - b` query by query: its standard error has the queries' own difficulty taken out."""
    return summarise(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))


def distinct_share(items: Ints) -> Floats:
    """[B]: share of different items among the k shown ones, `items` [B, k]."""
    ordered = np.sort(items, axis=1)
    fresh = (np.diff(ordered, axis=1) != 0).sum(axis=1) + 1
    return (fresh / items.shape[1]).astype(np.float32)


def distinct_overall(items: Ints) -> int:
    """How many different items all sets together show: 10 for a method that gives every query the same ten."""
    return int(np.unique(items).size)


def pool_size(items: Ints) -> Floats:
    """[B]: different items in the pool of k lists of n, `items` [B, k, n] (at most k * n)."""
    return (distinct_share(items.reshape(len(items), -1)) * items.shape[1] * items.shape[2]).astype(np.float32)


def recall(items: Ints, references: Sequence[Sequence[int]], weights: Floats | None = None) -> Floats:
    """[B]: (weighted) share of each reference set inside the pool `items` [B, k, n] (paper App. B.2, Eq. 5)."""
    if weights is None:
        weights = np.ones(int(max(items.max(), max(max(reference) for reference in references))) + 1, dtype=np.float32)
    return coverage(items, references, weights)


def hit(items: Ints, references: Sequence[Sequence[int]]) -> Floats:
    """[B]: 1 where the pool holds at least one reference item, else 0 (paper App. B.2)."""
    pools = items.reshape(len(items), -1)
    found = [np.isin(pool, reference).any() for pool, reference in zip(pools, references, strict=True)]
    return np.asarray(found, dtype=np.float32)


def random_recall(k: int, n: int, n_items: int) -> float:
    """Recall that k * n items drawn without looking expect: the floor under every recall."""
    return min(k * n / n_items, 1.0)


def random_hit(k: int, n: int, n_items: int, references: Sequence[Sequence[int]]) -> float:
    """Hit that such a pool expects: one minus the chance to miss every reference, averaged over the queries."""
    left = n_items - min(k * n, n_items)
    missed = [np.prod([max(left - i, 0) / (n_items - i) for i in range(len(set(wanted)))]) for wanted in references]
    return float(1 - np.mean(missed))


def paper_depth(k: int, n_items: int) -> int:
    """Items per list that make k lists the share of the database that Recall@5K is of the paper's, at least one."""
    return max(1, round(PAPER_POOL / PAPER_ITEMS * n_items / k))


def shuffled_recall(items: Ints, references: Sequence[Sequence[int]], weights: Floats | None, seed: int) -> Floats:
    """[B]: recall of each query's pool against *another* query's references.

    A method that answers the query loses against its own recall here; one that lists popular items does not. Every
    query gets another's references (a random cycle through all queries). Needs at least two queries.
    """
    return recall(items, [references[int(j)] for j in other_queries(len(references), seed)], weights)


def other_queries(count: int, seed: int) -> Ints:
    """[count] another query for each, in a random cycle through all of them. Needs at least two queries."""
    if count < 2:
        raise ValueError("the shuffled-query control needs at least two queries")
    order = np.random.default_rng(seed).permutation(count)
    other = np.empty(count, dtype=np.int64)
    other[order] = np.roll(order, -1)
    return other


def vendi_over_runs(runs: Floats) -> tuple[Floats, Floats]:
    """Diversity across R independent runs per query, in both readings of the paper (App. B.2 and Table 2).

    `runs` [R, B, k, d] holds the directions of each run. Returns two arrays [B]: Vendi of the R unit-normalised run
    means over R, and Vendi of all R * k rows over R * k. A query with an unusable (NaN) run is NaN.
    """
    n_runs, batch, k, width = runs.shape
    usable = ~np.isnan(runs).any(axis=(0, 2, 3))
    means, rows = np.full(batch, np.nan, np.float32), np.full(batch, np.nan, np.float32)
    if usable.any():
        kept = runs[:, usable].transpose(1, 0, 2, 3)
        centres = kept.mean(axis=2)
        centres = centres / np.maximum(np.linalg.norm(centres, axis=-1, keepdims=True), 1e-12)
        means[usable] = vendi(centres) / n_runs
        rows[usable] = vendi(kept.reshape(-1, n_runs * k, width)) / (n_runs * k)
    return means, rows
