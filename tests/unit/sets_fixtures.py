"""A small catalogue with random unit vectors and training sets over it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r4t.catalog.dataset import Dataset
from r4t.sets import ShardColumns, write_shard
from r4t.sets.answers import STATUSES
from r4t.types import Query

K, ROWS, DIM = 3, 4, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRecord:
    """One line of a shard."""

    query: int
    query_id: str
    sample: int
    rows: tuple[int, ...]
    subqueries: tuple[int, ...]
    reward: float
    terms: dict[str, float]
    valid: bool
    policy_version: int


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def small_dataset(n_items: int = 30, n_queries: int = 10) -> Dataset:
    """Queries 0-5 train, 6-7 valid, the rest test."""
    rng = np.random.default_rng(0)
    splits = ["train"] * 6 + ["valid"] * 2 + ["test"] * (n_queries - 8)
    return Dataset(
        item_ids=[f"i{i}" for i in range(n_items)],
        item_texts=[f"item {i}" for i in range(n_items)],
        item_names=[f"item {i}" for i in range(n_items)],
        item_vectors=unit(rng, n_items, DIM),
        queries=[Query(query_id=f"q{i}", text=f"query {i}", split=split) for i, split in enumerate(splits)],
        query_vectors=unit(rng, n_queries, DIM),
    )


def record(query: int, sample: int, seed: int = 0, **changes: Any) -> SetRecord:
    rng = np.random.default_rng([query, sample, seed])
    values: dict[str, Any] = {
        "query": query,
        "query_id": f"q{query}",
        "sample": sample,
        "rows": tuple(rng.permutation(30)[:ROWS].tolist()),
        "subqueries": (0, 1, 2),
        "reward": float(np.round(rng.random(), 3)),
        "terms": {"diversity": float(rng.random()), "alignment": float(rng.random())},
        "valid": True,
        "policy_version": 7,
    }
    return SetRecord(**{**values, **changes})


def invalid(query: int, sample: int) -> SetRecord:
    return record(query, sample, rows=(), subqueries=(), reward=-1.0, terms={}, valid=False)


def columns(records: Sequence[SetRecord], vectors: np.ndarray | None = None) -> ShardColumns:
    """The records as a shard over three sub-queries."""

    def padded(lists: list[tuple[int, ...]], width: int) -> np.ndarray:
        return np.array([list(values) or [-1] * width for values in lists], dtype=np.int64).reshape(-1, width)

    terms = sorted({name for one in records for name in one.terms})
    return ShardColumns(
        query=np.array([one.query for one in records]),
        sample=np.array([one.sample for one in records]),
        rows=padded([one.rows for one in records], ROWS),
        subqueries=padded([one.subqueries for one in records], K),
        reward=np.array([one.reward for one in records], np.float32),
        valid=np.array([one.valid for one in records]),
        terms={name: np.array([one.terms.get(name, np.nan) for one in records], np.float32) for name in terms},
        texts=("red soup", "warm bread", "green tea"),
        vectors=vectors,
        status=np.array([STATUSES.index("ok" if one.valid else "no_block") for one in records], np.int8),
        policy_version=np.array([one.policy_version for one in records]),
        query_id=tuple(one.query_id for one in records),
    )


def write(
    folder: Path, number: int, records: list[SetRecord], vectors: np.ndarray | None = None, **lineage: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"shard-{number:05d}.parquet"
    write_shard(path, columns(records, vectors), lineage={"policy": "abc", **lineage})
    return path
