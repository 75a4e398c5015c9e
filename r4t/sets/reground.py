"""Existing sub-queries over a changed catalogue: the same answers, searched, scored and composed anew."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from r4t.catalog.dataset import Dataset
from r4t.config import Config
from r4t.fanout import CLOSE, OPEN
from r4t.scoring import SetScorer
from r4t.sets.records import Written, build_shard
from r4t.sets.store import ShardColumns
from r4t.types import Bools, Ints


def same_queries(old: Dataset, new: Dataset) -> Ints:
    """[Q] for each query of `old` its row in `new`, -1 where none there has its id, its text and is for training."""
    known = {(query.query_id, query.text): row for row, query in enumerate(new.queries) if query.split == "train"}
    return np.array([known.get((query.query_id, query.text), -1) for query in old.queries], dtype=np.int64)


def reground_shard(shard: ShardColumns, rows: Ints, scorer: SetScorer, config: Config) -> ShardColumns | None:
    """The shard that synthesis makes of the same answers over the scorer's catalogue; None when no answer is left.

    `rows` [Q] are `same_queries`: answers to queries that have none are left out. `scorer` is one of
    `scoring_config(config)`. Why an answer could not be read is kept. Fillers go by the row of the query, as always:
    where that differs between the catalogues, so do they.
    """
    kept = np.flatnonzero(rows[shard.query] >= 0)
    if not kept.size:
        return None
    versions = np.unique(shard.policy_version[kept])
    if len(versions) != 1:
        raise ValueError(f"a shard is of one policy version, this one of {versions.tolist()}")
    written = Written(
        query=rows[shard.query[kept]],
        sample=shard.sample[kept],
        text=[answer_of([shard.texts[i] for i in shard.subqueries[row]]) if shard.valid[row] else "" for row in kept],
        finished=[True] * len(kept),
        policy_version=int(versions[0]),
    )
    return replace(build_shard(written, scorer, config), status=shard.status[kept])


def answer_of(subqueries: list[str]) -> str:
    """An answer that the parser reads as exactly these sub-queries, also where one holds a tag of the answer's."""
    body = json.dumps(subqueries, ensure_ascii=False).replace("<", "\\u003c")
    return f"{OPEN}{body}{CLOSE}"


def changed_sets(old: ShardColumns, new: ShardColumns, before: Dataset, after: Dataset, rows: Ints) -> Bools:
    """[M] for each set of `new`: whether its rows are other items than in `old`, or the same with other vectors.

    `new` is `reground_shard` of `old`, or was read back from its file. Unreadable answers have not changed.
    """
    kept = np.flatnonzero(rows[old.query] >= 0)
    changed = np.zeros(len(kept), dtype=bool)
    valid = np.flatnonzero(new.valid)
    ours, theirs = new.rows[valid], old.rows[kept[valid]]
    if new.vectors is None or old.vectors is None:
        ids = np.array(before.item_ids, dtype=object), np.array(after.item_ids, dtype=object)
        moved = (ids[0][theirs] != ids[1][ours]).any(axis=1)
        vectors = before.item_vectors, after.item_vectors
    else:
        moved = np.zeros(len(valid), dtype=bool)
        vectors = old.vectors, new.vectors.astype(np.float16).astype(np.float32)
    if vectors[0].shape[1] != vectors[1].shape[1]:
        changed[valid] = True
        return changed
    for column in range(ours.shape[1]):  # one row of every set at a time: all vectors at once would be large
        moved |= (vectors[0][theirs[:, column]] != vectors[1][ours[:, column]]).any(axis=1)
    changed[valid] = moved
    return changed
