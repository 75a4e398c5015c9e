"""Which answers stand in which shard: decided by the configuration alone, never by who samples them or when."""

from __future__ import annotations

from dataclasses import dataclass

from r4t.config import Sets
from r4t.types import Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The answers of one shard: samples `first` ... `first + samples - 1` of every query."""

    queries: tuple[int, ...]
    first: int
    samples: int

    @property
    def answers(self) -> int:
        return len(self.queries) * self.samples


def slices(queries: Ints, sets: Sets) -> list[Slice]:
    """Consecutive shards: whole queries, or a part of one query's answers where these exceed `sets.shard_answers`."""
    samples, limit = sets.samples_per_query, sets.shard_answers
    if samples > limit:
        starts = range(0, samples, limit)
        return [
            Slice(queries=(query,), first=first, samples=min(limit, samples - first))
            for query in queries.tolist()
            for first in starts
        ]
    step = min(sets.shard_queries, limit // samples)
    return [
        Slice(queries=tuple(queries[start : start + step].tolist()), first=0, samples=samples)
        for start in range(0, len(queries), step)
    ]
