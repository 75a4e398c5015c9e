"""The encoded catalogue: what the prepare stage writes and every later stage reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from r4t.catalog.source import SPLITS, Catalog
from r4t.errors import UserError
from r4t.lineage import atomic_path, is_finished, read_tensors, write_tensors
from r4t.types import Floats, Ints, Query

FILES = ["items.parquet", "queries.parquet", "vectors.safetensors"]
UNIT_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Items and queries with their vectors; row i of a vector array belongs to entry i of the list."""

    item_ids: list[str]
    item_texts: list[str]
    item_names: list[str]
    item_vectors: Floats
    """[N, d] unit rows."""
    queries: list[Query]
    query_vectors: Floats
    """[Q, d] unit rows."""
    facts: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Further columns of the items file, each [N]."""

    def split(self, name: str) -> Ints:
        """Rows of the queries in `train`, `valid` or `test`, ascending. Raises UserError for another name."""
        if name not in SPLITS:
            raise UserError(f"unknown split '{name}': use one of {', '.join(SPLITS)}")
        return np.array([row for row, query in enumerate(self.queries) if query.split == name], dtype=np.int64)

    def item_frequencies(self) -> Floats:
        """[N] share of the training queries whose references hold the item (zeros in OAR, which has no references).

        Recomposed sets do not count: a metric weighted by frequency must not depend on data.augment.
        """
        counts = np.zeros(len(self.item_ids), dtype=np.float32)
        training = [query for query in self.queries if query.split == "train" and not query.origin]
        for query in training:
            counts[list(query.references)] += 1
        return counts / np.float32(max(len(training), 1))


def save_dataset(folder: Path, catalog: Catalog, item_vectors: Floats, query_vectors: Floats) -> None:
    """Writes the files of the prepare stage, each atomically. `item_vectors` [N, d], `query_vectors` [Q, d]."""
    items = {
        "item_id": [item.item_id for item in catalog.items],
        "text": [item.text for item in catalog.items],
        "name": [item.name for item in catalog.items],
        **_extra_columns([item.extra for item in catalog.items]),
    }
    queries = pa.table(
        {
            "query_id": [query.query_id for query in catalog.queries],
            "text": [query.text for query in catalog.queries],
            "split": [query.split for query in catalog.queries],
            "references": pa.array([list(query.references) for query in catalog.queries], pa.list_(pa.int64())),
            "origin": [query.origin for query in catalog.queries],
        }
    )
    for name, table in (("items.parquet", pa.table(items)), ("queries.parquet", queries)):
        with atomic_path(folder / name) as temporary:
            pq.write_table(table, temporary, compression="zstd")
    write_tensors(folder / "vectors.safetensors", {"items": item_vectors, "queries": query_vectors})


def load_dataset(folder: Path, facts: Sequence[str] = ()) -> Dataset:
    """Reads a finished prepare folder, and of the items' further columns those in `facts` that exist.

    Raises UserError when it is unfinished, damaged or holds unusable vectors.
    """
    if not is_finished(folder):
        raise UserError(f"{folder} holds no finished dataset: run `r4t run CONFIG --stage prepare` first")
    known = pq.read_schema(folder / "items.parquet").names
    wanted = dict.fromkeys(["item_id", "text", "name", *(name for name in facts if name in known)])
    items = pq.read_table(folder / "items.parquet", columns=list(wanted)).to_pydict()
    queries = [
        Query(
            query_id=row["query_id"],
            text=row["text"],
            split=row["split"],
            references=tuple(row["references"]),
            origin=row.get("origin", ""),  # absent from folders made before sets could be recomposed
        )
        for row in pq.read_table(folder / "queries.parquet").to_pylist()
    ]
    vectors = read_tensors(folder / "vectors.safetensors")
    _check_vectors(folder, vectors, n_items=len(items["item_id"]), n_queries=len(queries))
    return Dataset(
        item_ids=items["item_id"],
        item_texts=items["text"],
        item_names=items["name"],
        item_vectors=vectors["items"],
        queries=queries,
        query_vectors=vectors["queries"],
        facts={name: items[name] for name in facts if name in known},
    )


def _extra_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _check_vectors(folder: Path, vectors: Mapping[str, Floats], *, n_items: int, n_queries: int) -> None:
    again = f"delete {folder} and run `r4t run CONFIG --stage prepare` again"
    for name, rows in (("items", n_items), ("queries", n_queries)):
        if name not in vectors:
            raise UserError(f"vectors.safetensors has no '{name}': {again}")
        array = vectors[name]
        if array.ndim != 2 or len(array) != rows or array.dtype != np.float32:
            raise UserError(f"the {name} vectors are {array.dtype} {array.shape}, not float32 ({rows}, d): {again}")
        if not np.isfinite(array).all():
            raise UserError(f"the {name} vectors hold NaN or infinite values: {again}")
        if rows and np.abs(np.linalg.norm(array, axis=1) - 1).max() > UNIT_TOLERANCE:
            raise UserError(f"the {name} vectors are not of unit length: {again}")
    if vectors["items"].shape[1] != vectors["queries"].shape[1]:
        raise UserError(f"item and query vectors have different widths: {again}")
