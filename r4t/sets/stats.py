"""What a folder of training sets holds: counts, coverage of the catalogue, spread of the reward and its terms."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r4t.catalog.dataset import Dataset
from r4t.catalog.overview import quantiles
from r4t.errors import UserError
from r4t.sets.answers import STATUSES
from r4t.sets.columns import checked_shard, shard_paths
from r4t.sets.store import ShardColumns
from r4t.types import Bools, Floats, Ints

BINS = 30
Nearest = Callable[[Floats], Ints]


def set_stats(folder: Path, dataset: Dataset, nearest: Nearest, prepare_sha256: str | None = None) -> dict[str, Any]:
    """Facts about all sets of a folder, as JSON has them. Shards are read one at a time; kept are a few columns.

    An item is used when a set holds it (OAR), or holds a sub-query that it is `nearest` to: [t, d] -> [t] rows of the
    items (WSCR). Two sets are the same when they hold the same items, or sub-queries, in whatever order and number;
    they are told apart by a 64-bit hash. Errors as `checked_shard`.
    """
    paths = shard_paths(folder)
    if not paths:
        raise UserError(f"no training sets in {folder}: run the stage 'sets' first")
    uses = np.zeros(len(dataset.item_ids), dtype=np.int64)
    item_codes = np.random.default_rng(0).integers(0, 2**64, len(uses), dtype=np.uint64)
    status: Counter[str] = Counter()
    queries, codes, sizes, reward = [], [], [], []
    terms: dict[str, list[Floats]] = {}
    for shard in (checked_shard(path, dataset, prepare_sha256) for path in paths):
        rows = shard.rows[shard.valid]
        distinct = _distinct(rows)
        of_rows = item_codes if shard.vectors is None else _text_codes(shard)
        codes.append(np.where(distinct, of_rows[rows], 0).sum(axis=1, dtype=np.uint64))
        sizes.append(distinct.sum(axis=1))
        items = rows if shard.vectors is None else nearest(shard.vectors)[rows]
        np.add.at(uses, items[_distinct(items)], 1)
        status.update(dict(zip(STATUSES, np.bincount(shard.status, minlength=len(STATUSES)).tolist(), strict=True)))
        queries.append(shard.query[shard.valid])
        reward.append(shard.reward[shard.valid])
        for name, values in shard.terms.items():
            terms.setdefault(name, []).append(values[shard.valid])
    code, size = np.concatenate(codes), np.concatenate(sizes)
    _, per_query = np.unique(np.concatenate(queries), return_counts=True)
    return {
        "answers": status.total(),
        "status": {name: status[name] for name in STATUSES if status[name]},
        "sets": len(code),
        "unique_sets": len(np.unique(code)),
        "queries": len(per_query),
        "sets_per_query": quantiles(per_query.tolist()),
        "distinct_rows_per_set": float(size.mean()) if len(size) else None,
        "items": _usage(uses),
        "reward": histogram(np.concatenate(reward)),
        "terms": {name: histogram(np.concatenate(parts)) for name, parts in sorted(terms.items())},
    }


def histogram(values: Floats) -> dict[str, Any] | None:
    """Mean, standard deviation and counts in BINS equal bins from the smallest to the largest value; None of none."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return None
    counts, edges = np.histogram(finite, BINS)
    return {
        "count": finite.size,
        "mean": float(finite.mean()),
        "std": float(finite.std()),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }


def _usage(uses: Ints) -> dict[str, Any]:
    used = int((uses > 0).sum())
    top = np.sort(uses)[::-1][: max(1, len(uses) // 100)]
    return {
        "catalogue": len(uses),
        "used": used,
        "never_used": len(uses) - used,
        "coverage": used / len(uses),
        "sets_per_item": quantiles(uses.tolist()),
        "share_of_the_top_percent": float(top.sum() / uses.sum()) if uses.any() else None,
    }


def _distinct(rows: Ints) -> Bools:
    """[M, L] True where an id stands for the first time in its line."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    first = np.ones(rows.shape, dtype=bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    found = np.empty_like(first)
    np.put_along_axis(found, order, first, axis=1)
    return found


def _text_codes(shard: ShardColumns) -> NDArray[np.uint64]:
    def digests() -> Iterator[bytes]:
        for text in shard.texts:
            yield hashlib.blake2b(text.encode(), digest_size=8).digest()

    return np.frombuffer(b"".join(digests()), dtype=np.uint64)
