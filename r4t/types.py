"""The values that cross process boundaries. Arrays carry their shapes: B batch, k sub-queries, n depth, d width."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A user's broad query. `references` are rows of the item table (WSCR only; empty in OAR)."""

    query_id: str
    text: str
    split: str
    references: tuple[int, ...] = ()
    origin: str = ""
    """`query_id` of the training query whose set was recomposed into this one's; empty where people made the set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One answer of the policy, with the log-probabilities of the engine that sampled it."""

    query: int
    """Row of the query in the dataset."""
    sample: int
    """0 ... G-1 inside its group."""
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Natural logarithms under the sampling law, one per token."""
    text: str
    policy_version: int
    finished: bool
    """False when the token limit cut the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fanout:
    """The parsed answer: exactly k sub-queries when valid, none otherwise."""

    subqueries: tuple[str, ...]
    valid: bool
    n_written: int = 0
    """Sub-queries in the answer before it was cut or padded to k."""
    spans: tuple[tuple[int, int], ...] = ()
    """Character range of each *written* sub-query kept, in the answer's text (len = min(n_written, k))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredBatch:
    """Scores of B completions. Rows of invalid answers hold -1 items and the invalid reward."""

    fanouts: tuple[Fanout, ...]
    rewards: Floats
    """[B]"""
    terms: dict[str, Floats]
    """Unweighted reward terms, each [B] (NaN where the answer is invalid)."""
    items: Ints
    """[B, k, n] rows of the item table, nearest first."""
    row_credit: Floats
    """[B, k] marginal contribution of each sub-query to the reward (0 when invalid)."""
    cosine: Floats
    """[B] mean pairwise cosine of the sub-query embeddings (NaN when invalid, 0 when k is 1)."""
    credits: dict[str, Floats] = field(default_factory=dict)
    """The same [B, k] for each weighted term by itself, unweighted; only where training weighs terms anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """What one call of a rollout worker returns."""

    completions: tuple[Completion, ...]
    """Query-major, the same number of samples for every query."""
    seconds: float
    """Spent generating."""
    load_seconds: float
    """Spent loading weights since the worker's previous call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What one call of a scorer returns."""

    batch: ScoredBatch
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The scored answers to one drawn query: the unit of advantages, filtering and staleness."""

    key: int
    """Position of the draw in the query stream (training), or the query's row (validation)."""
    completions: tuple[Completion, ...]
    scored: ScoredBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievedSets:
    """What a method returns for B queries."""

    items: Ints
    """[B, k, n] rows of the item table; the set shown to a user is `items[:, :, 0]`."""
    directions: Floats | None = None
    """[B, k, d] unit vectors that were searched with: sub-query embeddings or generated rows."""
    subqueries: tuple[tuple[str, ...], ...] | None = None
    """The text of the directions, for methods that write text."""
    valid: Bools | None = None
    """[B] false where the language model's answer could not be parsed (its items fall back to the plain query)."""
