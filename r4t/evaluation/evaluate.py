"""From the sets of all methods to `metrics.json`: values per query, their summaries, and comparisons with zero-shot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from r4t.catalog.fill_in_blank import CHOICES
from r4t.evaluation.measure import Yardstick, measure, run_diversity
from r4t.evaluation.metrics import Cell, distinct_overall, paired_difference, random_hit, random_recall, summarise
from r4t.types import Floats, Ints, RetrievedSets

BASELINE = "zero_shot"
METHODS = (
    "random",
    "popular",
    "no_fanout",
    "mmr",
    "dpp",
    "kmeans",
    "prf",
    "bm25",
    "zero_shot",
    "best_of_n",
    "r4t_folm",
    "r4t_diffusion",
    "r4t_diffusion_reference",
    "r4t_distilled",
    "zero_shot_diffusion",
)


def method_values(
    yardstick: Yardstick, runs: Sequence[RetrievedSets], repeated: Sequence[RetrievedSets] = ()
) -> dict[str, Floats]:
    """Per-query values [B] of one method: each metric averaged over `runs` (one per seed).

    `repeated` are the independent runs per query behind the Vendi Score of paper App. B.2.
    """
    per_run = [measure(yardstick, sets, seed) for seed, sets in enumerate(runs)]
    values = {name: _mean_present(np.stack([run[name] for run in per_run])) for name in per_run[0]}
    return values | run_diversity(repeated)


def method_cells(values: Mapping[str, Floats], items: Ints) -> dict[str, Any]:
    """One method's entry in `metrics.json`; metrics that apply to no query are absent. `items` [B, k] are the shown."""
    cells: dict[str, Any] = {}
    for name, per_query in values.items():
        cell = summarise(per_query)
        if cell is None:
            continue
        group, _, metric = name.rpartition(".")
        (cells.setdefault(group, {}) if group else cells)[metric] = _rounded(cell)
    cells["distinct_overall"] = distinct_overall(items)
    return cells


def value_tensors(values: Mapping[str, Mapping[str, Floats]]) -> dict[str, Floats]:
    """`{"method/metric": [B] float32}`, queries in the order of the evaluated rows; NaN where it does not apply."""
    return {
        f"{method}/{name}": np.asarray(per_query, dtype=np.float32)
        for method, own in values.items()
        for name, per_query in own.items()
    }


def floors(yardstick: Yardstick, k: int, n: int) -> dict[str, float]:
    """What every metric of coverage expects of a pool drawn without looking, under the metric's name (WSCR)."""
    references = yardstick.references
    if references is None:
        return {}
    n_items = len(yardstick.dataset.item_ids)
    found = {"recall": random_recall(k, n, n_items), "hit": random_hit(k, n, n_items, references)}
    if (deep := yardstick.paper_n) is not None:
        found["recall_5k"] = random_recall(k, deep, n_items)
        found["hit_5k"] = random_hit(k, deep, n_items, references)
    if yardstick.blanks is not None and (yardstick.blanks >= 0).any():
        found["fill_in_blank"] = 1 / CHOICES
    return {name: round(value, 6) for name, value in found.items()}


def comparisons(values: Mapping[str, Mapping[str, Floats]]) -> dict[str, dict[str, Any]]:
    """`{method: {metric: paired difference from zero-shot}}`, for every metric that both have."""
    if BASELINE not in values:
        return {}
    base = values[BASELINE]
    table: dict[str, dict[str, Any]] = {}
    for method, own in values.items():
        if method == BASELINE:
            continue
        gaps = {name: paired_difference(own[name], base[name]) for name in own if name in base}
        table[method] = {name: _rounded(gap) for name, gap in gaps.items() if gap is not None}
    return table


def sample_sets(yardstick: Yardstick, shown: Mapping[str, RetrievedSets], count: int = 10) -> list[dict[str, Any]]:
    """`count` queries spread over the split, with every method's item names and sub-queries."""
    dataset = yardstick.dataset
    total = len(yardstick.query_rows)
    chosen = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
    return [
        {
            "query": dataset.queries[yardstick.query_rows[i]].text,
            "references": [dataset.item_names[row] for row in dataset.queries[yardstick.query_rows[i]].references],
            "methods": {name: sample(dataset.item_names, sets, i) for name, sets in shown.items()},
        }
        for i in chosen
    ]


def sample(names: Sequence[str], sets: RetrievedSets, i: int) -> dict[str, Any]:
    """Item names and, where there are any, sub-queries of the i-th set."""
    shown: dict[str, Any] = {"items": [names[row] for row in sets.items[i, :, 0]]}
    if sets.subqueries is not None and sets.subqueries[i]:
        shown["subqueries"] = list(sets.subqueries[i])
    if sets.valid is not None and not sets.valid[i]:
        shown["valid"] = False
    return shown


def _mean_present(stacked: Floats) -> Floats:
    """Mean over the first axis of what is not NaN; NaN where nothing is present."""
    present = ~np.isnan(stacked)
    count = present.sum(axis=0)
    total = np.where(present, stacked, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _rounded(cell: Cell) -> dict[str, float]:
    return {name: round(value, 6) for name, value in asdict(cell).items()}
