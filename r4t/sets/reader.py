"""Training sets in memory: ids, and one table of vectors from which batches are gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r4t.catalog.dataset import Dataset
from r4t.config import Config
from r4t.errors import UserError
from r4t.sets.store import ShardColumns, read_shard
from r4t.types import Bools, Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSets:
    """M sets of L rows. Vectors are looked up when a batch is drawn, so M sets cost M x L integers."""

    query: Ints
    """[M] rows of `query_vectors`."""
    rows: Ints
    """[M, L] rows of `table`."""
    table: Floats
    """[T, d] unit vectors: the item table (OAR) or all distinct sub-queries (WSCR)."""
    query_vectors: Floats
    """[Q, d]"""

    def __len__(self) -> int:
        return len(self.query)

    def gather(self, chosen: Ints) -> tuple[Floats, Floats]:
        """Sets [B, L, d] and query vectors [B, d] of the chosen places, rows in stored order."""
        return self.table[self.rows[chosen]], self.query_vectors[self.query[chosen]]

    def draw(self, step: int, *, batch: int, seed: int, rank: int = 0, world: int = 1) -> tuple[Floats, Floats]:
        """The training batch of one rank at one step: every set once per epoch, its rows in a fresh random order.

        A function of its arguments alone, so that a resumed run continues with the very next batch.
        """
        first = (step * world + rank) * batch
        places = np.arange(first, first + batch)
        epochs = places // len(self)
        chosen = np.empty(batch, dtype=np.int64)
        for epoch in np.unique(epochs):
            order = np.random.default_rng([seed, epoch]).permutation(len(self))
            now = epochs == epoch
            chosen[now] = order[places[now] % len(self)]
        rng = np.random.default_rng([seed, step, rank, 1])
        return self.table[permute_rows(self.rows[chosen], rng)], self.query_vectors[self.query[chosen]]

    def split(self, share: float, seed: int) -> tuple[TargetSets, TargetSets]:
        """The sets of all queries but a random `share` of them, and the sets of those (at least one query each)."""
        queries = np.unique(self.query)
        if len(queries) < 2:
            raise UserError("the sets hold fewer than two queries: raise data.n_queries")
        held = np.random.default_rng(seed).permutation(queries)[: max(1, round(share * len(queries)))]
        inside = np.isin(self.query, held)
        return self._take(~inside), self._take(inside)

    def _take(self, kept: Bools) -> TargetSets:
        return TargetSets(
            query=self.query[kept], rows=self.rows[kept], table=self.table, query_vectors=self.query_vectors
        )


def permute_rows(sets: Ints, rng: np.random.Generator) -> Ints:
    """Every line of [B, L] in a random order of its own: sets have none."""
    return np.take_along_axis(sets, rng.random(sets.shape).argsort(axis=1), axis=1)


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a folder in order, without their sub-query tables."""
    return sorted(path for path in folder.glob("shard-*.parquet") if path.name.count(".") == 1)


def load_targets(folder: Path, dataset: Dataset, config: Config) -> TargetSets:
    """Reads all shards of a finished sets folder. Unparsable answers are left out; reward filters apply if configured.

    Raises UserError when there is nothing to read, or a set belongs to a query outside the training split.
    """
    paths = shard_paths(folder)
    if not paths:
        raise UserError(f"no training sets in {folder}: run the stage 'sets' first")
    shards = [read_shard(path) for path in paths]
    query, reward, valid = (np.concatenate([getattr(s, name) for s in shards]) for name in ("query", "reward", "valid"))
    outside = np.setdiff1d(query, dataset.split("train"))
    if outside.size:
        raise UserError(
            f"{folder} holds sets of {outside.size} queries that are not in the training split: delete it and run the"
            " stage 'sets' again"
        )
    kept = valid & _filter(query, reward, valid, config.sets.min_reward, config.sets.top_fraction)
    if not kept.any():
        raise UserError(
            f"no usable set in {folder} ({len(kept)} answers): check sets.min_reward and the policy's answers"
        )
    rows, table = _rows_and_table(shards, dataset)
    return TargetSets(
        query=query[kept], rows=rows[kept], table=table, query_vectors=np.ascontiguousarray(dataset.query_vectors)
    )


def _rows_and_table(shards: Sequence[ShardColumns], dataset: Dataset) -> tuple[Ints, Floats]:
    if shards[0].vectors is None:
        return np.concatenate([shard.rows for shard in shards]), dataset.item_vectors
    vectors = [shard.vectors for shard in shards if shard.vectors is not None]
    starts = np.cumsum([0, *(len(v) for v in vectors[:-1])])
    rows = [np.where(s.rows < 0, -1, s.rows + start) for s, start in zip(shards, starts, strict=True)]
    table = np.concatenate(vectors)
    return np.concatenate(rows), table / np.linalg.norm(table, axis=1, keepdims=True)


def _filter(query: Ints, reward: Floats, valid: Bools, minimum: float | None, top: float | None) -> Bools:
    """Optional reward filters: at least `minimum`, and the best `top` share of each query's valid answers."""
    kept = np.ones(len(query), dtype=bool) if minimum is None else reward >= minimum
    if top is None:
        return kept
    order = np.lexsort((-reward, ~valid, query))
    _, starts, counts = np.unique(query[order], return_index=True, return_counts=True)
    place = np.arange(len(query)) - np.repeat(starts, counts)
    n_valid = np.add.reduceat(valid[order].astype(np.int64), starts)
    best = np.zeros(len(query), dtype=bool)
    best[order] = place < np.repeat(np.ceil(top * n_valid), counts)
    return kept & best
