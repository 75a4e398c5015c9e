"""Is one method better than another? Bootstrap over seeds and queries, and Holm's correction over a family of tests.

A method's values are a matrix [S, B]: S training seeds, B queries that are the same for every seed. A resample draws
seeds and queries independently, with replacement (the crossed, or pigeonhole, bootstrap: Owen 2007), because a query
that is hard for one seed is hard for all of them. With one seed it is the ordinary bootstrap over queries.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean, or a share, with its bootstrap standard error and percentile interval."""

    value: float
    stderr: float
    low: float
    high: float
    p: float
    """One-sided: how often a resample is at or below zero (a difference) or below the threshold (a share)."""
    queries: int
    seeds: int


def mean(values: Matrix, *, seed: int = 0) -> Estimate:
    """Mean of `values` [S, B], NaN left out. Raises ValueError when nothing is left."""
    drawn = resampled_means(values, seed=seed)
    return _estimate(float(np.nanmean(values)), drawn, 0.0, values)


def difference(a: Matrix, b: Matrix, *, seed: int = 0) -> Estimate:
    """Mean of `a - b`, paired by seed and query. Raises ValueError for unequal shapes."""
    _check_paired(a, b)
    return mean(a - b, seed=seed)


def share(part: Matrix, whole: Matrix, *, threshold: float = 1.0, seed: int = 0) -> Estimate:
    """Mean of `part` over mean of `whole`, on common resamples; `p` is against `threshold`.

    A resample whose whole is not positive has no share and is left out. Raises ValueError for unequal shapes, and where
    the mean of `whole` is not positive.
    """
    _check_paired(part, whole)
    missing = np.isnan(part) | np.isnan(whole)
    part, whole = np.where(missing, np.nan, part), np.where(missing, np.nan, whole)
    above, below = resampled_means(part, seed=seed), resampled_means(whole, seed=seed)
    if not np.nanmean(whole) > 0:
        raise ValueError("a share needs a whole whose mean is positive")
    defined = below > 0
    return _estimate(float(np.nanmean(part) / np.nanmean(whole)), above[defined] / below[defined], threshold, part)


def resampled_means(values: Matrix, *, seed: int = 0, resamples: int = RESAMPLES) -> Matrix:
    """[resamples] means of crossed resamples of `values` [S, B]; equal arguments give equal numbers.

    A resample in which nothing but NaN was drawn repeats the mean of all.
    """
    values = np.atleast_2d(np.asarray(values, dtype=np.float64))
    present = ~np.isnan(values)
    if not present.any():
        raise ValueError("no value is present: there is nothing to summarise")
    filled = np.where(present, values, 0.0)
    by_seed, by_query = _draws(*values.shape, seed, resamples)
    total = ((by_query @ filled.T) * by_seed).sum(axis=1)
    weight = ((by_query @ present.T.astype(np.float64)) * by_seed).sum(axis=1)
    return np.where(weight > 0, total / np.maximum(weight, 1), filled.sum() / present.sum())


@functools.lru_cache(maxsize=4)
def _draws(seeds: int, queries: int, seed: int, resamples: int) -> tuple[Matrix, Matrix]:
    """How often each resample drew each seed [R, S] and each query [R, B]."""
    rng = np.random.default_rng(seed)
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    by_query = rng.multinomial(queries, np.full(queries, 1 / queries), size=resamples)
    return by_seed.astype(np.float64), by_query.astype(np.float64)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm-Bonferroni adjusted p-values of one family: reject at level a those that are at most a.

    Controls the chance of one false rejection whatever the dependence between the tests (Holm 1979).
    """
    ordered = sorted(p_values.items(), key=lambda named: (named[1], named[0]))
    adjusted: dict[str, float] = {}
    running = 0.0
    for place, (name, p) in enumerate(ordered):
        running = max(running, min(1.0, (len(ordered) - place) * p))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def _check_paired(a: Matrix, b: Matrix) -> None:
    if a.shape != b.shape:
        raise ValueError(
            f"values of shapes {a.shape} and {b.shape} are not paired: they need the same seeds and queries"
        )


def _estimate(value: float, drawn: Matrix, threshold: float, values: Matrix) -> Estimate:
    values = np.atleast_2d(values)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(
        value=value,
        stderr=float(drawn.std(ddof=1)),
        low=float(low),
        high=float(high),
        p=float((1 + (drawn <= threshold).sum()) / (1 + len(drawn))),
        queries=int((~np.isnan(values)).any(axis=0).sum()),
        seeds=int((~np.isnan(values)).any(axis=1).sum()),
    )
