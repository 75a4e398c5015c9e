"""A small catalogue with random unit vectors and training sets over it."""

from pathlib import Path
from typing import Any

import numpy as np

from r4t.catalog.dataset import Dataset
from r4t.sets import SetRecord, Shard, write_shard
from r4t.types import Query

K, ROWS, DIM = 3, 4, 8


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


def write(
    folder: Path, number: int, records: list[SetRecord], vectors: np.ndarray | None = None, **lineage: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"shard-{number:05d}.parquet"
    shard = Shard(records=tuple(records), texts=("red soup", "warm bread", "green tea"), vectors=vectors)
    write_shard(path, shard, k=K, rows=ROWS, lineage={"policy": "abc", **lineage})
    return path
