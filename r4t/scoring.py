"""Scores whole batches of answers: parse, deduplicate sub-queries, encode once, search once, then set-level terms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from r4t.catalog.dataset import Dataset
from r4t.catalog.encoders import Encoder
from r4t.catalog.index import Index, build_index
from r4t.config import Config
from r4t.fanout import parse
from r4t.objective.compose import Scores, inverse_frequency_weights, score_sets
from r4t.objective.facts import item_facts
from r4t.objective.inputs import SetInputs
from r4t.types import Floats, Ints, ScoredBatch


class SetScorer:
    """The training reward over one dataset. Pure given its inputs: the same answers always score the same.

    `index` searches the dataset's items; None builds the one that the configuration asks for.
    """

    def __init__(self, dataset: Dataset, encoder: Encoder, config: Config, index: Index | None = None) -> None:
        self.dataset = dataset
        self.encoder = encoder
        self.config = config
        self.index = index or build_index(dataset.item_vectors, config.index, dataset.query_vectors)
        inverse = config.task == "wscr" and config.objective.coverage_weighting == "inverse_frequency"
        self.item_weights = inverse_frequency_weights(dataset.item_frequencies()) if inverse else None
        self.facts = item_facts(dataset.facts, config.objective, dataset.item_frequencies())

    def score(self, query_rows: Sequence[int], texts: Sequence[str]) -> ScoredBatch:
        """Scores B answers to the queries at `query_rows`. Invalid answers get the objective's invalid reward."""
        k, n = self.config.fanout.k, self.config.fanout.n
        fanouts = tuple(parse(text, k) for text in texts)
        valid = np.array([fanout.valid for fanout in fanouts], dtype=bool)
        batch = len(texts)
        items = np.full((batch, k, min(n, len(self.dataset.item_ids))), -1, dtype=np.int64)
        rewards = np.full(batch, self.config.objective.invalid_reward, dtype=np.float32)
        credit = np.zeros((batch, k), dtype=np.float32)
        pairwise = np.full(batch, np.nan, dtype=np.float32)
        terms: dict[str, Floats] = {}
        credits: dict[str, Floats] = {}
        if valid.any():
            rows = np.asarray(query_rows)[valid]
            directions, found, cosine = self.search([f.subqueries for f in fanouts if f.valid])
            scores = self.score_found(rows, directions, found, cosine)
            items[valid] = found
            rewards[valid] = scores.reward
            credit[valid] = scores.row_credit
            pairwise[valid] = pairwise_cosine(directions)
            for name, values in scores.terms.items():
                terms[name] = np.full(batch, np.nan, dtype=np.float32)
                terms[name][valid] = values
            if self.config.objective.reweighted:
                credits = {name: np.zeros((batch, k), dtype=np.float32) for name in scores.credits}
                for name, values in scores.credits.items():
                    credits[name][valid] = values
        return ScoredBatch(
            fanouts=fanouts,
            rewards=rewards,
            terms=terms,
            items=items,
            row_credit=credit,
            cosine=pairwise,
            credits=credits,
        )

    def search(self, subqueries: Sequence[Sequence[str]]) -> tuple[Floats, Ints, Floats]:
        """Directions [B, k, d], items [B, k, n] and the top cosine [B, k] of B fan-outs of k texts each."""
        shape = (len(subqueries), len(subqueries[0]))
        unique = sorted({text for fanout in subqueries for text in fanout})
        row = {text: i for i, text in enumerate(unique)}
        where = np.array([[row[text] for text in fanout] for fanout in subqueries])
        vectors = self.encoder.encode(unique)
        cosine, items = self.index.search(vectors, self.config.fanout.n)
        return vectors[where], items[where].reshape(*shape, -1), cosine[where][:, :, 0]

    def score_directions(self, query_rows: Sequence[int], directions: Floats) -> Scores:
        """Scores generated rows [B, k, d] (unit length) as if they were sub-query embeddings."""
        batch, k, d = directions.shape
        cosine, items = self.index.search(np.ascontiguousarray(directions.reshape(-1, d)), self.config.fanout.n)
        found = items.reshape(batch, k, -1)
        return self.score_found(np.asarray(query_rows), directions, found, cosine.reshape(batch, k, -1)[:, :, 0])

    def score_found(self, query_rows: Ints, directions: Floats, items: Ints, top_cosine: Floats) -> Scores:
        """Scores of B sets whose directions [B, k, d] found `items` [B, k, n], the nearest at `top_cosine` [B, k].

        `query_rows` [B] are rows of the dataset's queries.
        """
        references = None
        if self.config.task == "wscr":
            references = [self.dataset.queries[row].references for row in query_rows]
        inputs = SetInputs(
            query=self.dataset.query_vectors[query_rows],
            directions=directions,
            items=items,
            top_cosine=top_cosine,
            item_vectors=self.dataset.item_vectors,
            references=references,
            item_weights=self.item_weights,
            facts=self.facts,
        )
        return score_sets(inputs, self.config.objective)


def pairwise_cosine(directions: Floats) -> Floats:
    """[B]: mean cosine of the k(k-1)/2 pairs of unit rows in `directions` [B, k, d]; 0 when k is 1."""
    k = directions.shape[1]
    if k == 1:
        return np.zeros(len(directions), dtype=np.float32)
    squared = (directions.sum(axis=1) ** 2).sum(axis=1)  # |sum of rows|^2 = k + twice the sum over pairs
    return ((squared - k) / (k * (k - 1))).astype(np.float32)


def part_of(scored: ScoredBatch, rows: slice) -> ScoredBatch:
    """The answers at `rows` of a batch."""
    return ScoredBatch(
        fanouts=scored.fanouts[rows],
        rewards=scored.rewards[rows],
        terms={name: values[rows] for name, values in scored.terms.items()},
        items=scored.items[rows],
        row_credit=scored.row_credit[rows],
        cosine=scored.cosine[rows],
        credits={name: values[rows] for name, values in scored.credits.items()},
    )


def join_scored(parts: Sequence[ScoredBatch]) -> ScoredBatch:
    """One batch from consecutive parts. A term that a part lacks (no valid answer) is NaN there, its credit 0."""
    names = sorted({name for part in parts for name in part.terms})
    credited = sorted({name for part in parts for name in part.credits})
    return ScoredBatch(
        fanouts=tuple(fanout for part in parts for fanout in part.fanouts),
        rewards=np.concatenate([part.rewards for part in parts]),
        terms={
            name: np.concatenate([part.terms.get(name, np.full(len(part.rewards), np.nan, "f4")) for part in parts])
            for name in names
        },
        items=np.concatenate([part.items for part in parts]),
        row_credit=np.concatenate([part.row_credit for part in parts]),
        cosine=np.concatenate([part.cosine for part in parts]),
        credits={
            name: np.concatenate([part.credits.get(name, np.zeros_like(part.row_credit)) for part in parts])
            for name in credited
        },
    )
