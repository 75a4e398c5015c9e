"""The reward as training sees it: weights on a schedule, and terms brought to one scale inside each group.

Validation, synthesis and reports use the plain reward at its final weights, so their numbers compare across steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from r4t.config import Objective
from r4t.types import Floats, ScoredBatch

EPS = 1e-6


def training_rewards(scored: ScoredBatch, objective: Objective, versions: Sequence[int]) -> tuple[Floats, Floats]:
    """Rewards [B] and row credits [B, k] that advantages are made of, for Q groups of G = B / Q answers.

    `versions` [Q] are the policy versions that answered: the schedule follows them, so that a late or repeated answer
    is judged as it would have been. Invalid answers stay below every valid one of their group.
    """
    if not objective.reweighted:
        return scored.rewards, scored.row_credit
    size = len(scored.rewards) // len(versions)
    rewards, credit = scored.rewards.copy(), scored.row_credit.copy()
    valid = np.array([fanout.valid for fanout in scored.fanouts], dtype=bool)
    for g, version in enumerate(versions):
        rows = np.arange(g * size, (g + 1) * size)
        rows = rows[valid[rows]]
        if not len(rows):
            continue
        values = {name: term[rows] for name, term in scored.terms.items()}
        credits = {name: term[rows] for name, term in scored.credits.items()}
        weights = scheduled_weights(objective, version)
        if objective.normalise == "group":
            spread = {name: float(values[name].std()) for name in weights}
            scale = {name: 1.0 / std if std > EPS else 0.0 for name, std in spread.items()}
            values = {name: (values[name] - values[name].mean()) * scale[name] for name in weights}
            credits = {name: term * scale[name] for name, term in credits.items()}
        rewards[rows] = np.sum([weight * values[name] for name, weight in weights.items()], axis=0)
        credit[rows] = np.sum([weights[name] * term for name, term in credits.items()], axis=0)
        if objective.normalise == "group":
            own = slice(g * size, (g + 1) * size)
            rewards[own][~valid[own]] = rewards[rows].min() - np.ptp(rewards[rows]) - 1.0
    return rewards, credit


def scheduled_weights(objective: Objective, version: int) -> dict[str, float]:
    """Weights of a policy after `version` updates: straight lines between the schedule's points, flat outside."""
    factors = {
        name: float(np.interp(version, [step for step, _ in points], [factor for _, factor in points]))
        for name, points in objective.schedule.items()
    }
    return {name: weight * factors.get(name, 1.0) for name, weight in objective.weights.items() if weight}
