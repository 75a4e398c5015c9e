"""What a catalogue looks like before anything is trained on it: sizes, texts, repetitions, neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from r4t.catalog.source import SPLITS, Catalog
from r4t.types import Floats

NEAR = 0.95  # cosine from which another item is a near-duplicate
SAMPLE = 5_000  # items whose neighbours are looked up, among all items
BLOCK = 256
QUANTILES = {"min": 0.0, "p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}


def overview(catalog: Catalog, vectors: Floats, seed: int = 0) -> dict[str, Any]:
    """Facts about the catalogue and its item vectors [N, d] of unit length, as JSON has them.

    Nearest neighbours are exact, over all items, for a random SAMPLE of them (every item of a smaller catalogue).
    """
    n = len(catalog.items)
    rows = np.sort(np.random.default_rng(seed).permutation(n)[:SAMPLE])
    nearest = nearest_cosines(vectors, rows)
    references = [len(query.references) for query in catalog.queries if query.references]
    splits = Counter(query.split for query in catalog.queries)
    return {
        "items": n,
        "dropped": catalog.dropped,
        "repeated_texts": catalog.repeated_texts(),
        "words_per_text": quantiles([len(item.text.split()) for item in catalog.items]),
        "width": vectors.shape[1],
        "neighbours": {
            "sampled_items": len(rows),
            "same_vector": float((nearest > 1 - 1e-6).mean()),
            "near_duplicates": float((nearest > NEAR).mean()),
            "distance": quantiles(np.maximum(1 - nearest, 0).tolist()),
        },
        "queries": {split: splits[split] for split in SPLITS},
        "references_per_query": quantiles(references),
    }


def nearest_cosines(vectors: Floats, rows: np.ndarray) -> Floats:
    """[m] the cosine of each of the m `rows` to the nearest other of the N unit `vectors` (-1 where there is none)."""
    nearest = np.full(len(rows), -1, dtype=np.float32)
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        cosines = vectors[block] @ vectors.T
        cosines[np.arange(len(block)), block] = -1
        nearest[start : start + BLOCK] = cosines.max(axis=1)
    return nearest


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """The QUANTILES of some values, or None of none."""
    if not values:
        return None
    found = np.quantile(np.asarray(values, dtype=np.float64), list(QUANTILES.values()))
    return dict(zip(QUANTILES, found.tolist(), strict=True))
