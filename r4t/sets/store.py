"""Shards of training sets: Parquet, ids instead of vectors, lineage and a content digest in the schema metadata.

A shard is two files: `shard-00000.parquet` has one line per sampled answer; `shard-00000.subqueries.parquet` holds
every distinct sub-query text once, with its vector in float16 where vectors are the targets (WSCR).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from r4t.lineage import atomic_path
from r4t.types import Floats, Ints

TERM = "term."


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRecord:
    """One sampled answer. An invalid one has no sub-queries and no rows, and keeps its place for the statistics."""

    query: int
    """Row of the query in the prepared dataset."""
    query_id: str
    sample: int
    rows: tuple[int, ...]
    """[L] rows of the item table (OAR), or places in `Shard.texts` (WSCR)."""
    subqueries: tuple[int, ...]
    """[k] places in `Shard.texts`."""
    reward: float
    terms: dict[str, float]
    valid: bool
    policy_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    records: tuple[SetRecord, ...]
    texts: tuple[str, ...]
    """Distinct sub-queries."""
    vectors: Floats | None = None
    """[texts, d], stored in float16; None in OAR, where the targets are items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardColumns:
    """A shard as arrays of M answers, for reading many of them fast."""

    query: Ints
    sample: Ints
    rows: Ints
    """[M, L]; -1 where invalid."""
    subqueries: Ints
    """[M, k]; -1 where invalid."""
    reward: Floats
    valid: np.ndarray
    terms: dict[str, Floats]
    texts: tuple[str, ...]
    vectors: Floats | None


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.parquet"


def subqueries_name(name: str) -> str:
    return name.removesuffix(".parquet") + ".subqueries.parquet"


def write_shard(path: Path, shard: Shard, *, k: int, rows: int, lineage: dict[str, Any]) -> None:
    """Writes both files, each atomically, the shard itself last: a shard that exists is whole."""
    texts = {"text": pa.array(shard.texts, pa.string())}
    if shard.vectors is not None:
        texts["vector"] = _fixed(shard.vectors.astype(np.float16), pa.float16())
    text_table = pa.table(texts)
    records = shard.records
    terms = sorted({name for record in records for name in record.terms})
    table = pa.table(
        {
            "query_id": pa.array([r.query_id for r in records], pa.string()),
            "query": pa.array([r.query for r in records], pa.int32()),
            "sample": pa.array([r.sample for r in records], pa.int32()),
            "valid": pa.array([r.valid for r in records], pa.bool_()),
            "rows": _fixed(_padded([r.rows for r in records], rows), pa.int32()),
            "subqueries": _fixed(_padded([r.subqueries for r in records], k), pa.int32()),
            "reward": pa.array([r.reward for r in records], pa.float32()),
            **{TERM + name: pa.array([r.terms.get(name) for r in records], pa.float32()) for name in terms},
            "policy_version": pa.array([r.policy_version for r in records], pa.int32()),
        }
    )
    metadata = {"lineage": json.dumps(lineage, sort_keys=True), "digest": _digest(table, text_table)}
    for target, content in ((path.parent / subqueries_name(path.name), text_table), (path, table)):
        with atomic_path(target) as temporary:
            pq.write_table(content.replace_schema_metadata(metadata), temporary, compression="zstd")


def shard_problem(path: Path, lineage: dict[str, Any]) -> str | None:
    """Why the shard at `path` cannot be used as the one of this lineage, or None when it is whole and right."""
    try:
        table, texts = _read(path)
    except FileNotFoundError:
        return "missing"
    except (pa.ArrowException, OSError) as error:
        return f"damaged ({error})"
    for part in (table, texts):
        metadata = part.schema.metadata or {}
        if metadata.get(b"digest", b"").decode() != _digest(table, texts):
            return "its content does not match its digest"
        if json.loads(metadata[b"lineage"]) != json.loads(json.dumps(lineage)):
            return "made from other inputs"
    return None


def read_lineage(path: Path) -> dict[str, Any]:
    """What the shard was made from."""
    return json.loads(pq.read_schema(path).metadata[b"lineage"])


def read_shard(path: Path) -> ShardColumns:
    table, texts = _read(path)
    names = [name for name in table.column_names if name.startswith(TERM)]
    return ShardColumns(
        query=table["query"].to_numpy().astype(np.int64),
        sample=table["sample"].to_numpy().astype(np.int64),
        rows=_matrix(table, "rows").astype(np.int64),
        subqueries=_matrix(table, "subqueries").astype(np.int64),
        reward=table["reward"].to_numpy().astype(np.float32),
        valid=table["valid"].to_numpy(),
        terms={name.removeprefix(TERM): table[name].to_numpy().astype(np.float32) for name in names},
        texts=tuple(texts["text"].to_pylist()),
        vectors=_matrix(texts, "vector").astype(np.float32) if "vector" in texts.column_names else None,
    )


def _read(path: Path) -> tuple[pa.Table, pa.Table]:
    # ParquetFile reads this one file; read_table would take the folder's other files for a partitioned data set.
    tables = []
    for part in (path, path.parent / subqueries_name(path.name)):
        with pq.ParquetFile(part) as file:
            tables.append(file.read())
    return tables[0], tables[1]


def _padded(lists: Sequence[Sequence[int]], width: int) -> Ints:
    array = np.full((len(lists), width), -1, dtype=np.int64)
    for line, values in zip(array, lists, strict=True):
        line[: len(values)] = values
    return array


def _fixed(matrix: np.ndarray, kind: pa.DataType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1), kind), matrix.shape[1])


def _matrix(table: pa.Table, name: str) -> np.ndarray:
    column = table[name].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)


def _digest(*tables: pa.Table) -> str:
    """SHA-256 of the names and values, whatever the compression, chunking or metadata."""
    digest = hashlib.sha256()
    for table in tables:
        for name in table.column_names:
            digest.update(f"{name}:{len(table)}:".encode() + _column_bytes(table, name))
    return digest.hexdigest()


def _column_bytes(table: pa.Table, name: str) -> bytes:
    kind = table.schema.field(name).type
    if pa.types.is_string(kind):
        return json.dumps(table[name].to_pylist()).encode()
    if pa.types.is_fixed_size_list(kind):
        return _matrix(table, name).tobytes()
    return table[name].to_numpy().tobytes()
