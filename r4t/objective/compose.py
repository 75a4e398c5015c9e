"""Composes the terms into one reward per set and a marginal contribution per sub-query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from r4t.config import Objective
from r4t.objective.inputs import SetInputs
from r4t.objective.registry import evaluate
from r4t.types import Floats

WATCHED = ("groundedness", "alignment", "content_alignment", "distinct", "diversity")
"""Terms that are reported whatever their weight, because they show how a policy games the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    reward: Floats
    """[B]"""
    terms: dict[str, Floats]
    """Unweighted terms, each [B]."""
    credits: dict[str, Floats]
    """What each weighted term owes to each sub-query [B, k], unweighted, up to a constant shared by the set."""
    row_credit: Floats
    """[B, k] the weighted sum of `credits`: what the reward owes to each sub-query."""


def score_sets(inputs: SetInputs, objective: Objective) -> Scores:
    """Rewards of B sets under `objective`. Credit is worked out where `objective.credit` is per row, else zero.

    Raises UserError for a term that cannot be computed.
    """
    weights = {name: weight for name, weight in objective.weights.items() if weight}
    names = dict.fromkeys((*WATCHED, *weights))
    if inputs.references is not None:
        names["coverage"] = None
    if inputs.facts.kinds is not None:
        names["complementarity"] = None
    per_row = objective.credit == "row"
    found = {name: evaluate(name, inputs, objective, per_row and name in weights) for name in names}
    values = {name: term.value for name, term in found.items()}
    batch, k = inputs.items.shape[:2]
    reward, row_credit = np.zeros(batch, dtype=np.float32), np.zeros((batch, k), dtype=np.float32)
    credits: dict[str, Floats] = {}
    for name, weight in weights.items():
        reward += weight * values[name]
        credit = found[name].credit
        if per_row and credit is not None:
            row_credit += weight * credit / found[name].shares
            credits[name] = credit / np.float32(found[name].shares)
    return Scores(reward=reward, terms=values, credits=credits, row_credit=row_credit)


def inverse_frequency_weights(frequencies: Floats) -> Floats:
    """[N] coverage weights `log(1 + 1/f)` from the share of training sets that hold each item."""
    floor = frequencies[frequencies > 0].min() if (frequencies > 0).any() else np.float32(1.0)
    return np.log1p(1.0 / np.maximum(frequencies, floor)).astype(np.float32)
