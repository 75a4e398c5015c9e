"""Training sets: ids in compact columns, and one table of vectors from which batches are gathered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from r4t.catalog.dataset import Dataset
from r4t.config import Config
from r4t.errors import UserError
from r4t.sets.columns import Half, SetColumns, read_sets, shard_paths
from r4t.sets.filters import filter_sets
from r4t.sets.order import epoch_order, row_order
from r4t.types import Bools, Floats, Ints

__all__ = ["TargetSets", "load_targets", "shard_paths"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSets:
    """M sets of L rows. Vectors are looked up when a batch is drawn, so M sets cost M x (L + 1) 32-bit integers.

    The arrays may be memory-mapped: nothing here copies or writes to them.
    """

    query: NDArray[np.int32]
    """[M] rows of `query_vectors`."""
    rows: NDArray[np.int32]
    """[M, L] rows of `table`."""
    table: Floats | Half
    """[T, d] unit vectors: the item table, float32 (OAR), or all sub-queries as stored, float16 (WSCR)."""
    lengths: Floats | None = None
    """[T] what rounding to float16 made of each length: gathered rows are divided by it. None for float32."""
    query_vectors: Floats
    """[Q, d]"""
    removed: Mapping[str, int] = field(default_factory=dict)
    """What the filters removed, by reason."""

    def __len__(self) -> int:
        return len(self.query)

    def gather(self, chosen: Ints) -> tuple[Floats, Floats]:
        """Sets [B, L, d] and query vectors [B, d] of the chosen places, rows in stored order."""
        return self.vectors(self.rows[chosen]), self.query_vectors[self.query[chosen]]

    def vectors(self, rows: NDArray[np.int32] | Ints) -> Floats:
        """The float32 unit vectors [..., d] of rows [...] of the table."""
        # PyTorch copies whole rows, on as many threads as it may use, and widens float16 in hardware.
        flat = torch.from_numpy(np.ascontiguousarray(rows).reshape(-1))
        found = torch.index_select(torch.from_numpy(self.table), 0, flat).float()
        if self.lengths is not None:
            found /= torch.index_select(torch.from_numpy(self.lengths), 0, flat)[:, None]
        return found.numpy().reshape(*rows.shape, -1)

    def draw(self, step: int, *, batch: int, seed: int, rank: int = 0, world: int = 1) -> tuple[Floats, Floats]:
        """The training batch of one rank at one step: every set once per epoch, its rows in a fresh random order.

        A function of its arguments alone, so that a resumed run continues with the very next batch.
        """
        first = (step * world + rank) * batch
        chosen, rows = self.drawn(np.arange(first, first + batch), seed)
        return self.vectors(rows), self.query_vectors[self.query[chosen]]

    def drawn(self, positions: Ints, seed: int) -> tuple[Ints, NDArray[np.int32]]:
        """The sets [B] at positions of the endless shuffled stream, and their rows [B, L] in the order of that draw.

        Positions M x e ... M x (e + 1) - 1 are epoch e. What stands at one depends on it and the seed alone.
        """
        epochs, places = np.divmod(positions, len(self))
        chosen = epoch_order(places, len(self), seed, epochs)
        order = row_order(chosen, self.rows.shape[1], seed, epochs)
        return chosen, np.take_along_axis(self.rows[chosen], order, axis=1)

    def split(self, share: float, seed: int) -> tuple[TargetSets, TargetSets]:
        """The sets of all queries but a random `share` of them, and the sets of those (at least one query each)."""
        queries = np.unique(self.query)
        if len(queries) < 2:
            raise UserError("the sets hold fewer than two queries: raise data.n_queries")
        held = np.random.default_rng(seed).permutation(queries)[: max(1, round(share * len(queries)))]
        inside = np.isin(self.query, held)
        return self.take(~inside), self.take(inside)

    def take(self, kept: Bools | slice) -> TargetSets:
        """Some of the sets over the same table; a slice copies nothing."""
        return replace(self, query=self.query[kept], rows=self.rows[kept])


def load_targets(folder: Path, dataset: Dataset, config: Config, prepare: Path | None = None) -> TargetSets:
    """Reads all shards of a sets folder into memory. Unparsable answers are left out; filters apply if configured.

    Raises UserError when there is nothing to read or nothing left, and as `read_sets`, which also explains `prepare`.
    """
    parts: list[Half] = []
    columns = read_sets(folder, dataset, parts.append, prepare)
    kept, removed = usable(folder, columns, config)
    table: Floats | Half = dataset.item_vectors if columns.subqueries is None else np.concatenate(parts)
    return TargetSets(
        query=columns.query[kept],
        rows=columns.rows[kept],
        table=table,
        lengths=None if columns.subqueries is None else lengths_of(table),
        query_vectors=np.ascontiguousarray(dataset.query_vectors),
        removed=removed,
    )


def usable(folder: Path, columns: SetColumns, config: Config) -> tuple[Bools, dict[str, int]]:
    """Which answers training uses, and what was removed. Raises UserError when none is left."""
    if config.sets.item_cap is not None and columns.subqueries is not None:
        raise UserError("sets.item_cap counts items, and sets of task 'wscr' hold sub-queries: remove sets.item_cap")
    found = filter_sets(columns.query, columns.sample, columns.rows, columns.reward, columns.valid, config.sets)
    if not found.kept.any():
        raise UserError(
            f"no usable set in {folder} ({len(found.kept)} answers; removed: {found.removed}): check sets.min_reward,"
            " the other filters in section 'sets', and the policy's answers"
        )
    return found.kept, found.removed


def lengths_of(vectors: Floats | Half) -> Floats:
    """[T] lengths of [T, d] vectors, in single precision."""
    return np.linalg.norm(vectors.astype(np.float32), axis=1)
