"""Signs of a policy that collapses: it earns reward while its sets, its words or its format decay."""

from __future__ import annotations

import numpy as np

from r4t.config import Alarms
from r4t.types import ScoredBatch


def vital_signs(scored: ScoredBatch) -> dict[str, float]:
    """Five numbers of a batch of answers that fall when a policy collapses; 0 where no answer is valid.

    `distinct`: mean share of distinct top-1 items in a set. `distinct_items`: different top-1 items over all sets.
    `type_token`: different words over all words of all sub-queries. `spread`: 1 minus the mean pairwise cosine of a
    set's sub-query embeddings. `valid`: share of answers that parse.
    """
    valid = np.array([fanout.valid for fanout in scored.fanouts], dtype=bool)
    first = scored.items[valid][:, :, 0]
    words = [word for fanout in scored.fanouts for text in fanout.subqueries for word in text.lower().split()]
    return {
        "distinct": float(np.mean([len(set(row)) / len(row) for row in first.tolist()])) if valid.any() else 0.0,
        "distinct_items": float(len(set(first.ravel().tolist()))),
        "type_token": len(set(words)) / len(words) if words else 0.0,
        "spread": float(1.0 - scored.cosine[valid].mean()) if valid.any() else 0.0,
        "valid": float(valid.mean()),
    }


def alarms(signs: dict[str, float], start: dict[str, float], limits: Alarms) -> list[str]:
    """Names of the signs that fell below their limit, a share of what the warm-started policy showed (`start`)."""
    return [name for name, share in limits.model_dump().items() if signs[name] < share * start[name]]
