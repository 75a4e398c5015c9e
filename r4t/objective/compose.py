"""Composes the terms into one reward per set and a marginal contribution per sub-query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from r4t.config import Objective
from r4t.objective import terms
from r4t.types import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class SetInputs:
    """Everything a set-level objective may look at, for B sets."""

    query: Floats
    """[B, d]"""
    directions: Floats
    """[B, k, d] sub-query embeddings (or a retriever's generated rows)."""
    items: Ints
    """[B, k, n] rows of the item table, nearest first."""
    top_cosine: Floats
    """[B, k] cosine of each direction with its nearest item."""
    item_vectors: Floats
    """[N, d]"""
    references: Sequence[Sequence[int]] | None = None
    """WSCR: rows of the reference items of each query."""
    item_weights: Floats | None = None
    """[N] coverage weights; None means 1 each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    reward: Floats
    """[B]"""
    terms: dict[str, Floats]
    """Unweighted terms, each [B]."""
    row_credit: Floats
    """[B, k] what the reward owes to each sub-query, up to a constant shared by the set."""


def score_sets(inputs: SetInputs, objective: Objective) -> Scores:
    """Rewards of B sets under `objective`. Every term is computed and reported, whatever its weight."""
    content = inputs.item_vectors[inputs.items[:, :, 0]]  # [B, k, d]: one representative item per sub-query
    k = content.shape[1]
    spread = terms.vendi(content)
    rows = {
        "groundedness": terms.groundedness_rows(inputs.top_cosine),
        "alignment": terms.cosine_rows(inputs.directions, inputs.query),
        "content_alignment": terms.cosine_rows(content, inputs.query),
        "distinct": terms.first_finds(inputs.items[:, :, 0]),
    }
    values = {name: row.mean(axis=1) for name, row in rows.items()}
    values["diversity"] = terms.normalise_vendi(spread, k, objective.vendi_norm)
    if inputs.references is not None:
        weights = inputs.item_weights if inputs.item_weights is not None else np.ones(len(inputs.item_vectors), "f4")
        rows["coverage"] = terms.coverage_credit(inputs.items, inputs.references, weights)
        values["coverage"] = rows["coverage"].sum(axis=1)
    weight = objective.weights.model_dump()
    if objective.kind == "coverage":
        extra = weight["distinct"]
        reward = values["coverage"] + extra * values["distinct"]
        return Scores(reward=reward, terms=values, row_credit=rows["coverage"] + extra * rows["distinct"] / k)
    reward = np.sum([weight[name] * values[name] for name in weight], axis=0).astype(np.float32)
    credit = np.sum([weight[name] * rows[name] / k for name in weight if name in rows], axis=0)
    if k > 1 and weight["diversity"]:
        marginal = spread[:, None] - terms.vendi_without(content)
        unit = terms.normalise_vendi(np.float32(1.0) + marginal, k, objective.vendi_norm)
        base = terms.normalise_vendi(np.ones_like(marginal), k, objective.vendi_norm)
        credit = credit + weight["diversity"] * (unit - base)
    return Scores(reward=reward, terms=values, row_credit=credit.astype(np.float32))


def inverse_frequency_weights(frequencies: Floats) -> Floats:
    """[N] coverage weights `log(1 + 1/f)` from the share of training sets that hold each item."""
    floor = frequencies[frequencies > 0].min() if (frequencies > 0).any() else np.float32(1.0)
    return np.log1p(1.0 / np.maximum(frequencies, floor)).astype(np.float32)
