"""Shards of training sets: Parquet, ids instead of vectors, lineage and a content digest in the schema metadata.

A shard is two files: `shard-00000.parquet` has one line per sampled answer; `shard-00000.subqueries.parquet` holds
every distinct sub-query text once, with its vector in float16 where vectors are the targets (WSCR). On request a third,
`shard-00000.tensors.parquet`, holds the targets themselves (see `r4t.sets.tensors`). Columns are plain Arrow types.
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
from numpy.typing import NDArray

from r4t.lineage import atomic_path
from r4t.sets.answers import STATUSES
from r4t.types import Bools, Floats, Ints

TERM = "term."
DICTIONARY = ["query_id", "query", "sample", "status", "rows.list.element", "subqueries.list.element", "policy_version"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardColumns:
    """A shard as arrays of M answers. An invalid one has no sub-queries and no rows, and keeps its place."""

    query: Ints
    """[M] rows of the queries in the prepared dataset."""
    sample: Ints
    rows: Ints
    """[M, L] rows of the item table (OAR), or places in `texts` (WSCR); -1 where invalid."""
    subqueries: Ints
    """[M, k] places in `texts`; -1 where invalid."""
    reward: Floats
    valid: Bools
    terms: dict[str, Floats]
    """Each [M]; NaN where invalid."""
    texts: tuple[str, ...]
    """Distinct sub-queries."""
    vectors: Floats | None
    """[texts, d], stored in float16; None in OAR, where the targets are items."""
    status: NDArray[np.int8]
    """[M] places in `r4t.sets.answers.STATUSES`."""
    policy_version: Ints
    """[M]"""
    query_id: tuple[str, ...]
    """[M]"""


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.parquet"


def subqueries_name(name: str) -> str:
    return name.removesuffix(".parquet") + ".subqueries.parquet"


def tensors_name(name: str) -> str:
    return name.removesuffix(".parquet") + ".tensors.parquet"


def shard_files(path: Path) -> list[Path]:
    """Every file of the shard at `path`, the shard itself last; the tensors only where they exist."""
    folder, name = path.parent, path.name
    tensors = folder / tensors_name(name)
    return [folder / subqueries_name(name), *([tensors] if tensors.is_file() else []), path]


def write_shard(path: Path, shard: ShardColumns, *, lineage: dict[str, Any], tensors: pa.Table | None = None) -> None:
    """Writes the files, each atomically, the shard itself last: a shard that exists is whole."""
    texts = {"text": pa.array(shard.texts, pa.string())}
    if shard.vectors is not None:
        texts["vector"] = fixed_lists(shard.vectors.astype(np.float16), pa.float16())
    text_table, table = pa.table(texts), _table(shard)
    parts = [(subqueries_name(path.name), text_table), (path.name, table)]
    if tensors is not None:
        parts.insert(1, (tensors_name(path.name), tensors))
    metadata = {"lineage": json.dumps(lineage, sort_keys=True), "digest": _digest([part for _, part in parts])}
    floats = [name for name in table.column_names if table.schema.field(name).type == pa.float32()]
    for name, part in parts:
        with atomic_path(path.parent / name) as temporary:
            pq.write_table(
                part.replace_schema_metadata(metadata),
                temporary,
                compression="zstd",
                compression_level=6,
                use_dictionary=DICTIONARY if part is table else False,
                use_byte_stream_split=floats if part is table else False,
                write_statistics=False,
            )


def shard_problem(path: Path, lineage: dict[str, Any]) -> str | None:
    """Why the shard at `path` cannot be used as the one of this lineage, or None when it is whole and right."""
    try:
        parts = [_read(file) for file in shard_files(path)]
    except FileNotFoundError:
        return "missing"
    except (pa.ArrowException, OSError) as error:
        return f"damaged ({error})"
    digest = _digest(parts)
    for part in parts:
        metadata = part.schema.metadata or {}
        if metadata.get(b"digest", b"").decode() != digest:
            return "its content does not match its digest"
        if json.loads(metadata[b"lineage"]) != json.loads(json.dumps(lineage)):
            return "made from other inputs"
    return None


def read_lineage(path: Path) -> dict[str, Any]:
    """What the shard was made from."""
    return json.loads(pq.read_schema(path).metadata[b"lineage"])


def read_shard(path: Path) -> ShardColumns:
    texts, table = _read(path.parent / subqueries_name(path.name)), _read(path)
    names = [name for name in table.column_names if name.startswith(TERM)]
    status = table["status"].combine_chunks().dictionary_encode()
    codes = np.array([STATUSES.index(name) for name in status.dictionary.to_pylist()], dtype=np.int8)
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
        status=codes[status.indices.to_numpy()],
        policy_version=table["policy_version"].to_numpy().astype(np.int64),
        query_id=tuple(table["query_id"].to_pylist()),
    )


def read_columns(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Some of a shard's columns of single values, for sums over many shards."""
    with pq.ParquetFile(path) as file:
        table = file.read(columns=list(names))
    return {name: table[name].to_numpy() for name in names}


def fixed_lists(matrix: np.ndarray, kind: pa.DataType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1), kind), matrix.shape[1])


def _table(shard: ShardColumns) -> pa.Table:
    terms = {
        TERM + name: pa.array(values, pa.float32(), from_pandas=True) for name, values in sorted(shard.terms.items())
    }
    return pa.table(
        {
            "query_id": pa.array(shard.query_id, pa.string()),
            "query": pa.array(shard.query, pa.int32()),
            "sample": pa.array(shard.sample, pa.int32()),
            "valid": pa.array(shard.valid, pa.bool_()),
            "status": pa.DictionaryArray.from_arrays(pa.array(shard.status), pa.array(STATUSES)).cast(pa.string()),
            "rows": fixed_lists(shard.rows, pa.int32()),
            "subqueries": fixed_lists(shard.subqueries, pa.int32()),
            "reward": pa.array(shard.reward, pa.float32()),
            **terms,
            "policy_version": pa.array(shard.policy_version, pa.int32()),
        }
    )


def _read(path: Path) -> pa.Table:
    # ParquetFile reads this one file; read_table would take the folder's other files for a partitioned data set.
    with pq.ParquetFile(path) as file:
        return file.read()


def _matrix(table: pa.Table, name: str) -> np.ndarray:
    column = table[name].combine_chunks()
    if isinstance(column, pa.ExtensionArray):  # a tensor, stored as a list
        column = column.storage
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)


def _digest(tables: Sequence[pa.Table]) -> str:
    """SHA-256 of the names and values, whatever the compression, chunking or metadata."""
    digest = hashlib.sha256()
    for table in tables:
        for name in table.column_names:
            digest.update(f"{name}:{len(table)}:".encode())
            for part in _column_bytes(table, name):
                digest.update(part)
    return digest.hexdigest()


def _column_bytes(table: pa.Table, name: str) -> list[bytes]:
    kind = table.schema.field(name).type
    if pa.types.is_string(kind):
        texts = table[name].to_pylist()
        return [json.dumps([len(text) for text in texts]).encode(), "".join(texts).encode()]
    if pa.types.is_fixed_size_list(kind) or isinstance(kind, pa.ExtensionType):
        return [_matrix(table, name).tobytes()]
    return [table[name].to_numpy().tobytes()]
