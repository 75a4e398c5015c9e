"""Signs of a policy that collapses: it earns reward while its sets, its words or its format decay.

`alarms` bar a policy from being kept. `failure_modes` give what happens its name, and judge nothing.
"""

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


GAMED, DRIFTED, NARROWED, JUDGED = 0.1, 0.8, 0.8, 0.95
MODES = ("coordinate_gaming", "paraphrase_collapse", "semantic_drift", "over_anchoring", "judge_disagrees")


def failure_modes(now: dict[str, float], start: dict[str, float], limits: Alarms) -> list[str]:
    """Which of the known ways to game a set-level reward a policy shows (paper section 3.2), against its warm start.

    Both mappings hold vital signs, the watched terms, `reward`, and `judge/diversity` and `judge/alignment` where a
    judge read the sets; a mode whose numbers are missing is not named.
    `coordinate_gaming`: sub-queries move onto items (groundedness + 0.1) while items or words run out.
    `paraphrase_collapse`: a set's sub-queries come together while they come no further from the query.
    `semantic_drift`: the retrieved items leave the query (under 0.8 of its cosine) without covering more references.
    `over_anchoring`: they come closer to it, and a set's diversity falls under 0.8 of what it was.
    `judge_disagrees`: the reward rose, and the judge's diversity x alignment fell under 0.95 of what it was.
    """

    def share(name: str) -> float:
        return now[name] / start[name] if start.get(name, 0.0) > 0 and name in now else np.nan

    def gain(name: str) -> float:
        return now.get(name, np.nan) - start.get(name, np.nan)

    running_out = share("distinct_items") < limits.distinct_items or share("type_token") < limits.type_token
    shown = {
        "coordinate_gaming": gain("groundedness") > GAMED and running_out,
        "paraphrase_collapse": share("spread") < limits.spread and gain("alignment") >= 0,
        "semantic_drift": share("content_alignment") < DRIFTED and not gain("coverage") > 0,
        "over_anchoring": gain("content_alignment") > 0 and share("diversity") < NARROWED,
        "judge_disagrees": gain("reward") > 0 and share("judge/diversity") * share("judge/alignment") < JUDGED,
    }
    return [name for name in MODES if shown[name]]
