"""The teacher of the policy's supervised warm start: it composes fan-outs, the policy learns to write them.

`neighbours` needs no labels: items near the query, spread apart, each described by a few words of its name.
`sets` lists the items of the query's own training set (WSCR): whole names in any order, or excerpts `in_order`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from r4t.catalog.dataset import Dataset
from r4t.catalog.index import ExactIndex
from r4t.config import WarmStart
from r4t.types import Floats, Ints

_PUNCTUATION = "()[]{}<>,.;:!?\"\\'*-–—/|&"
_LINKS = " a an and as at by for from in into of on or over per the to under with without "


def teach(dataset: Dataset, query_rows: Sequence[int], k: int, config: WarmStart, seed: int) -> list[list[list[str]]]:
    """`config.fanouts_per_query` fan-outs of k sub-queries for each query; deterministic given the seed."""
    rng = np.random.default_rng(seed)
    pool = min(config.pool, len(dataset.item_ids))
    cosine, near = ExactIndex(dataset.item_vectors).search(dataset.query_vectors[np.asarray(query_rows)], pool)
    lessons = []
    for i, row in enumerate(query_rows):
        references = dataset.queries[row].references if config.source == "sets" else ()
        fanouts = []
        for _ in range(config.fanouts_per_query):
            listed = references if config.in_order else rng.permutation(references)
            chosen = [int(item) for item in listed[:k]]
            rest = _spread(cosine[i], near[i], dataset.item_vectors, k - len(chosen), config, rng)
            names = [dataset.item_names[item] for item in [*chosen, *rest]]
            whole = 0 if config.in_order else len(chosen)
            fanouts.append([*names[:whole], *(excerpt(name, rng) for name in names[whole:])])
        lessons.append(fanouts)
    return lessons


def _spread(
    cosine: Floats, near: Ints, vectors: Floats, k: int, config: WarmStart, rng: np.random.Generator
) -> list[int]:
    """k items of the pool by standardised score + Gumbel noise - redundancy x similarity to those already chosen."""
    score = (cosine - cosine.mean()) / (cosine.std() + 1e-6) + config.noise * rng.gumbel(size=len(near))
    similarity = np.full(len(near), -1.0)
    chosen: list[int] = []
    for _ in range(min(k, len(near))):
        value = score - config.redundancy * np.maximum(similarity, 0.0)
        value[chosen] = -np.inf
        chosen.append(int(np.argmax(value)))
        similarity = np.maximum(similarity, vectors[near] @ vectors[near[chosen[-1]]])
    return [int(near[c]) for c in chosen]


def excerpt(name: str, rng: np.random.Generator) -> str:
    """Two to four consecutive words of an item's name (or all of it), lower-cased, never cut at a preposition."""
    words = [word for raw in name.lower().split() if (word := raw.strip(_PUNCTUATION))]
    length = min(len(words), int(rng.integers(2, 5)))
    start = int(rng.integers(0, len(words) - length + 1))
    span = words[start : start + length]
    while len(span) > 1 and f" {span[-1]} " in _LINKS:
        span.pop()
    while len(span) > 1 and f" {span[0]} " in _LINKS:
        span.pop(0)
    return " ".join(span)
