"""All shards of a folder as compact columns, checked against the catalogue that they are read with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from r4t.catalog.dataset import Dataset
from r4t.errors import UserError
from r4t.lineage import MANIFEST, file_hash
from r4t.sets.store import ShardColumns, read_lineage, read_shard
from r4t.types import Bools, Floats

Half = NDArray[np.float16]
UNIT_TOLERANCE = 0.01  # of a vector's length after rounding to half precision


@dataclass(frozen=True, slots=True, kw_only=True)
class SetColumns:
    """M answers in stored order, in as few bytes as they need."""

    query: NDArray[np.int32]
    """[M] rows of the dataset's queries."""
    sample: NDArray[np.int32]
    """[M]"""
    rows: NDArray[np.int32]
    """[M, L] rows of the item table (OAR) or of all shards' sub-query vectors one after another; -1 where invalid."""
    reward: Floats
    valid: Bools
    subqueries: int | None
    """How many sub-query vectors the shards hold; None in OAR."""


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a folder in order, without their sub-query tables."""
    return sorted(path for path in folder.glob("shard-*.parquet") if path.name.count(".") == 1)


def read_sets(
    folder: Path, dataset: Dataset, keep_vectors: Callable[[Half], Any], prepare: Path | None = None
) -> SetColumns:
    """Reads every shard once, in order. The [t, d] sub-query vectors of each (WSCR) go to `keep_vectors`.

    Raises UserError where a shard is missing, damaged, of another catalogue or encoder, or of a query outside the
    training split. With `prepare`, the folder of `dataset`, sets must have been made over exactly that one.
    """
    expected = file_hash(prepare / MANIFEST) if prepare is not None and (prepare / MANIFEST).is_file() else None
    parts: list[tuple[np.ndarray, ...]] = []
    start, with_vectors = 0, set[bool]()
    for path in _all_shards(folder):
        shard = checked_shard(path, dataset, expected)
        with_vectors.add(shard.vectors is not None)
        rows = shard.rows
        if shard.vectors is not None:
            rows = np.where(rows < 0, -1, rows + start)
            keep_vectors(shard.vectors.astype(np.float16))  # exact: it was stored in half precision
            start += len(shard.vectors)
        narrow = (array.astype(np.int32) for array in (shard.query, shard.sample, rows))
        parts.append((*narrow, shard.reward.astype(np.float32), shard.valid))
    if len({part[2].shape[1] for part in parts}) > 1 or len(with_vectors) > 1:
        raise UserError(f"{folder} holds shards of different runs: delete it and run the stage 'sets' again")
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    _check_split(folder, columns[0], dataset)
    return SetColumns(
        query=columns[0],
        sample=columns[1],
        rows=columns[2],
        reward=columns[3],
        valid=columns[4],
        subqueries=start if with_vectors == {True} else None,
    )


def checked_shard(path: Path, dataset: Dataset, prepare_sha256: str | None = None) -> ShardColumns:
    """One shard, if it can belong to the dataset. Raises UserError that says which is wrong, the shard or the pairing.

    `prepare_sha256` is the hash of the manifest of the dataset's folder; shards that name another are refused.
    """
    try:
        shard, lineage = read_shard(path), read_lineage(path)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is damaged or incomplete ({reason}): delete it and {path.parent / MANIFEST}, then run"
            " `r4t run CONFIG --stage sets`, which makes this shard anew and keeps the others"
        ) from None
    again = "read them with the run that made them, or fit them to this catalogue with `r4t sets reground`"
    made_over = lineage.get("prepare_sha256")
    if prepare_sha256 is not None and made_over is not None and made_over != prepare_sha256:
        raise UserError(f"the sets in {path.parent} were made over another catalogue or encoder: {again}")
    width = dataset.item_vectors.shape[1]
    if shard.vectors is not None and shard.vectors.shape[1] != width:
        raise UserError(
            f"{path} holds vectors of {shard.vectors.shape[1]} columns, those of the catalogue have {width}: the sets"
            f" are of another encoder; {again}"
        )
    if shard.vectors is not None and not _unit(shard.vectors):
        raise UserError(f"{path} holds vectors that are not of unit length: run the stage 'sets' again")
    table = len(dataset.item_ids) if shard.vectors is None else len(shard.vectors)
    limits = ((shard.query, len(dataset.queries), "queries"), (shard.rows[shard.valid], table, "items"))
    for ids, limit, what in limits:
        if ids.size and not 0 <= ids.min() <= ids.max() < limit:
            raise UserError(
                f"{path} names {what} that do not exist ({ids.min()} to {ids.max()}, of {limit}): its sets are of"
                f" another catalogue; {again}"
            )
    return shard


def _all_shards(folder: Path) -> list[Path]:
    paths = shard_paths(folder)
    if not paths:
        raise UserError(f"no training sets in {folder}: run the stage 'sets' first")
    return paths


def _check_split(folder: Path, query: NDArray[np.int32], dataset: Dataset) -> None:
    outside = np.setdiff1d(query, dataset.split("train"))
    if outside.size:
        raise UserError(
            f"{folder} holds sets of {outside.size} queries that are not in the training split: delete it and run the"
            " stage 'sets' again"
        )


def _unit(vectors: Floats) -> bool:
    lengths = np.linalg.norm(vectors, axis=1)
    return bool((np.abs(lengths - 1) < UNIT_TOLERANCE).all())
