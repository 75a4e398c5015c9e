"""What the report calls methods and metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

METHOD_NAMES = {
    "random": "Random",
    "popular": "Popular",
    "no_fanout": "No fan-out",
    "mmr": "MMR",
    "dpp": "DPP",
    "kmeans": "k-means facets",
    "prf": "Feedback (Rocchio)",
    "bm25": "BM25 + RM3",
    "zero_shot": "Zero-shot",
    "best_of_n": "Best of N",
    "r4t_folm": "R4T-FOLM",
    "r4t_diffusion": "R4T-Diffusion",
    "r4t_diffusion_reference": "R4T-Diffusion, 256 steps",
    "r4t_distilled": "R4T-Distilled",
    "zero_shot_diffusion": "Zero-shot diffusion",
}
OURS = ("r4t_folm", "r4t_diffusion", "r4t_distilled")

METRICS = {
    "reward": ("Reward", "the training objective"),
    "recall": ("Recall", "share of the references in the pool"),
    "recall_weighted": ("Weighted recall", "rare items count more"),
    "hit": ("Hit", "queries with a reference found"),
    "recall_shuffled": ("Recall, shuffled queries", "against another query's references"),
    "recall_5k": ("Recall@5K, scaled", "pool of the paper's share of the database"),
    "hit_5k": ("Hit@5K, scaled", "the same pool"),
    "category_coverage": ("Category coverage", "the references' categories among the shown items"),
    "fill_in_blank": ("Fill in the blank", "left-out item among four"),
    "diversity": ("Diversity", "Vendi/k of the retrieved items"),
    "content_alignment": ("Content alignment", "cosine of items and query"),
    "content_alignment_shuffled": ("Content alignment, shuffled queries", "with another query"),
    "categories": ("Categories", "different ones over k"),
    "judge.diversity": ("Judge: diversity", "Vendi/k in the judge's space"),
    "judge.alignment": ("Judge: alignment", "cosine in the judge's space"),
    "distinct_items": ("Distinct items", "within a set"),
    "vendi_runs": ("Vendi over 5 runs", "of run means"),
    "vendi_rows": ("Vendi over 5 runs, rows", "of all rows"),
    "judge.groundedness": ("Judge: groundedness", "cosine of item and sub-query"),
    "groundedness": ("Groundedness", "Eq. 3, sub-queries"),
    "alignment": ("Alignment", "Eq. 4, sub-queries"),
    "invalid": ("Unusable answers", "replaced by the plain query's items"),
    "manifold": ("Manifold", "Eq. 3 on generated rows"),
    "row_alignment": ("Row alignment", "Eq. 4 on generated rows"),
}
"""Key, label and explanation, in the order of the tables."""
NOT_DRAWN = ("recall_shuffled", "content_alignment_shuffled", "vendi_rows", "invalid", "manifold", "row_alignment")
"""Metrics that the table lists and the bars leave out."""


def cell_of(method: Mapping[str, Any], metric: str) -> Mapping[str, float] | None:
    """The summary behind a metric key such as `judge.diversity`, or None where the method has none."""
    group, _, name = metric.rpartition(".")
    source = method.get(group, {}) if group else method
    cell = source.get(name)
    return cell if isinstance(cell, Mapping) and "mean" in cell else None


def method_name(key: str) -> str:
    return METHOD_NAMES.get(key, key)


def network_calls(number: int) -> str:
    """`1 network call`, `8 network calls`."""
    return f"{number} network call{'' if number == 1 else 's'}"


def in_words(text: str) -> str:
    """`text` with method and metric keys replaced by their labels."""
    labels = {key: label for key, (label, _) in METRICS.items()} | METHOD_NAMES
    keys = sorted((key for key in labels if "_" in key or "." in key), key=len, reverse=True)
    pattern = r"(?<![\w.])(" + "|".join(map(re.escape, keys)) + r")(?![\w.])"
    return re.sub(pattern, lambda match: labels[match[1]], text)
