"""Methods in which a language model writes the sub-queries: zero-shot, R4T-FOLM and best-of-N."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from r4t.catalog.encoders import Encoder
from r4t.catalog.index import Index
from r4t.fanout import parse
from r4t.methods.base import QueryBatch
from r4t.methods.baselines import plain_items
from r4t.scoring import SetScorer
from r4t.types import Fanout, Floats, RetrievedSets

Generate = Callable[[QueryBatch, int, float, int], list[list[str]]]
"""(queries, samples per query, temperature, seed) -> the answers, one list per query."""


class FanoutSearch:
    """Answers of a language model to sets of items: parse, encode every different sub-query once, search once.

    The set of an answer that cannot be parsed is the plain query's, and `valid` says so: a user is never left empty
    handed, and the metrics count how often that happened.
    """

    def __init__(self, encoder: Encoder, index: Index, k: int, n: int) -> None:
        self.encoder, self.index, self.k, self.n = encoder, index, k, n

    def __call__(self, queries: QueryBatch, answers: Sequence[str]) -> RetrievedSets:
        fanouts = [parse(answer, self.k) for answer in answers]
        valid = np.array([fanout.valid for fanout in fanouts], dtype=bool)
        directions = self._directions(fanouts)
        items = np.empty((len(queries), self.k, self.n), dtype=np.int64)
        if valid.any():
            _, rows = self.index.search(directions[valid].reshape(-1, directions.shape[-1]), self.n)
            items[valid] = rows.reshape(-1, self.k, self.n)
        if not valid.all():
            items[~valid] = plain_items(self.index, queries.vectors[~valid], self.k, self.n)
        subqueries = tuple(fanout.subqueries for fanout in fanouts)
        return RetrievedSets(items=items, directions=directions, subqueries=subqueries, valid=valid)

    def _directions(self, fanouts: Sequence[Fanout]) -> Floats:
        """[B, k, d] embeddings of the sub-queries; NaN where the answer is invalid, so that no mean includes it."""
        unique = sorted({text for fanout in fanouts for text in fanout.subqueries})
        directions = np.full((len(fanouts), self.k, self.encoder.dim), np.nan, dtype=np.float32)
        if unique:
            vectors = dict(zip(unique, self.encoder.encode(unique), strict=True))
            for row, fanout in enumerate(fanouts):
                if fanout.valid:
                    directions[row] = [vectors[text] for text in fanout.subqueries]
        return directions


class LanguageFanout:
    """One sampled answer per query: `zero_shot` with the warm-started policy, `r4t_folm` with the trained one."""

    def __init__(self, name: str, generate: Generate, search: FanoutSearch, temperature: float) -> None:
        self.name, self.generate, self.search, self.temperature = name, generate, search, temperature

    def retrieve(self, queries: QueryBatch, seed: int) -> RetrievedSets:
        answers = self.generate(queries, 1, self.temperature, seed)
        return self.search(queries, [samples[0] for samples in answers])


class BestOfN:
    """N sampled answers per query, of which the training reward picks one (paper section 3.1, N = 5)."""

    name = "best_of_n"

    def __init__(
        self, generate: Generate, search: FanoutSearch, scorer: SetScorer, temperature: float, samples: int
    ) -> None:
        self.generate, self.search, self.scorer = generate, search, scorer
        self.temperature, self.samples = temperature, samples

    def retrieve(self, queries: QueryBatch, seed: int) -> RetrievedSets:
        answers = self.generate(queries, self.samples, self.temperature, seed)
        rows = [int(row) for row in np.repeat(queries.rows, self.samples)]
        scored = self.scorer.score(rows, [text for samples in answers for text in samples])
        best = scored.rewards.reshape(len(queries), self.samples).argmax(axis=1)
        return self.search(queries, [samples[choice] for samples, choice in zip(answers, best, strict=True)])
