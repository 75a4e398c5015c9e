"""Training sets as memory-mapped tables: however many ranks and workers a machine has, it holds them once.

The first process that needs the sets of a folder reads its shards, filters them and writes flat arrays beside them;
all others wait for it. Everyone then maps the same files, whose pages the operating system keeps once per machine and
gives back when memory is short. The item table (OAR) is not copied: it is mapped where the prepare stage wrote it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from r4t.cache import cache_folder
from r4t.catalog.dataset import load_dataset
from r4t.config import Config
from r4t.errors import UserError
from r4t.lineage import MANIFEST, atomic_folder, file_hash, read_json, read_manifest, write_json
from r4t.sets.columns import Half, read_sets, shard_paths
from r4t.sets.reader import TargetSets, lengths_of, usable

FORMAT = 1
DESCRIPTION = "tables.json"
HOME = ".tables"


@dataclass(frozen=True, slots=True)
class OpenTables:
    """The sets that training uses, those of the training queries first, and who they are."""

    targets: TargetSets
    n_training: int
    digest: str
    """Of the shards, the catalogue, the filters and the split: the same sets in the same order."""

    @property
    def training(self) -> TargetSets:
        return self.targets.take(slice(0, self.n_training))

    @property
    def held_out(self) -> TargetSets:
        return self.targets.take(slice(self.n_training, None))


def open_tables(sets: Path, prepare: Path, config: Config) -> OpenTables:
    """Maps the tables of a sets folder over its catalogue, made first if need be. Errors as `load_targets`.

    The tables stand in `sets/.tables`, or in the cache folder where that cannot be written; they may be deleted while
    nobody uses them.
    """
    digest = _digest(sets, prepare, config)
    home = _home(sets)
    folder = home / digest[:16]
    if not _whole(folder):
        with _locked(home / ".lock"):
            if not _whole(folder):
                with atomic_folder(folder) as temporary:
                    _build(temporary, sets, prepare, config)
    return _open(folder, prepare, digest)


def _build(folder: Path, sets: Path, prepare: Path, config: Config) -> None:
    _check_files(sets)
    dataset = load_dataset(prepare)
    lengths: list[NDArray[np.float32]] = []
    with (folder / "table").open("wb") as file:

        def keep(vectors: Half) -> None:
            file.write(np.ascontiguousarray(vectors).data)
            lengths.append(lengths_of(vectors))

        columns = read_sets(sets, dataset, keep, prepare)
    kept, removed = usable(sets, columns, config)
    everything = TargetSets(
        query=columns.query[kept],
        rows=columns.rows[kept],
        table=dataset.item_vectors,
        query_vectors=dataset.query_vectors,
    )
    training, held_out = everything.split(config.retriever.validation_share, config.seed)
    width = dataset.item_vectors.shape[1]
    arrays: dict[str, tuple[str, tuple[int, ...]]] = {}
    if columns.subqueries is None:
        (folder / "table").unlink()
    else:
        arrays["table"] = ("float16", (columns.subqueries, width))
        arrays["lengths"] = _write(folder / "lengths", lengths)
    arrays["query"] = _write(folder / "query", [training.query, held_out.query])
    arrays["rows"] = _write(folder / "rows", [training.rows, held_out.rows])
    found = {"format": FORMAT, "arrays": arrays, "training": len(training), "removed": removed}
    write_json(folder / DESCRIPTION, found)


def _open(folder: Path, prepare: Path, digest: str) -> OpenTables:
    found = read_json(folder / DESCRIPTION)
    mapped = {name: _map(folder / name, *kind) for name, kind in found["arrays"].items()}
    catalogue = _mapped_tensors(prepare / "vectors.safetensors")
    targets = TargetSets(
        query=mapped["query"],
        rows=mapped["rows"],
        table=mapped.get("table", catalogue["items"]),
        lengths=mapped.get("lengths"),
        query_vectors=catalogue["queries"],
        removed=found["removed"],
    )
    return OpenTables(targets, found["training"], digest)


def _check_files(sets: Path) -> None:
    """Raises UserError where a file of a finished stage is not the one that its manifest records."""
    manifest = read_manifest(sets) or {"files": {}}
    for name, recorded in manifest["files"].items():
        path = sets / name
        if not path.is_file() or file_hash(path) != recorded["sha256"]:
            raise UserError(
                f"{path} is missing, cut or changed ({MANIFEST} records another file): delete it and {sets / MANIFEST},"
                " then run `r4t run CONFIG --stage sets`, which makes this shard anew and keeps the others"
            )


def _digest(sets: Path, prepare: Path, config: Config) -> str:
    if not (prepare / MANIFEST).is_file():
        raise UserError(f"{prepare} holds no finished dataset: run `r4t run CONFIG --stage prepare` first")
    if not (paths := shard_paths(sets)):
        raise UserError(f"no training sets in {sets}: run the stage 'sets' first")
    what = {
        "format": FORMAT,
        "shards": [_shard_digest(path) for path in paths],
        "prepare": file_hash(prepare / MANIFEST),
        "task": config.task,
        "seed": config.seed,
        "validation_share": config.retriever.validation_share,
        "filters": config.sets.model_dump(include={"min_reward", "top_fraction", "near_duplicate", "item_cap"}),
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _shard_digest(path: Path) -> list[Any]:
    try:
        metadata: Mapping[bytes, bytes] = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError):
        metadata = {}  # damaged: building the tables will say so
    return [path.name, path.stat().st_size, path.stat().st_mtime_ns, metadata.get(b"digest", b"").decode()]


def _home(sets: Path) -> Path:
    if os.access(sets, os.W_OK):
        return sets / HOME
    return cache_folder("tables") / hashlib.sha256(str(sets.resolve()).encode()).hexdigest()[:16]


def _whole(folder: Path) -> bool:
    """True where all arrays stand in full: a power cut may leave a folder whose files are short."""
    if not (folder / DESCRIPTION).is_file():
        return False
    arrays = read_json(folder / DESCRIPTION)["arrays"]
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == _bytes(*kind) for name, kind in arrays.items()
    )


def _write(path: Path, parts: list[NDArray[Any]]) -> tuple[str, tuple[int, ...]]:
    with path.open("wb") as file:
        for part in parts:
            file.write(np.ascontiguousarray(part).data)
    return parts[0].dtype.name, (sum(map(len, parts)), *parts[0].shape[1:])


def _map(path: Path, dtype: str, shape: list[int]) -> NDArray[Any]:
    if not _bytes(dtype, shape):
        return np.zeros(shape, dtype)
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)  # draws hop about: read it in one go beforehand
        return np.memmap(file, dtype=dtype, mode="c", shape=tuple(shape))


def _bytes(dtype: str, shape: list[int]) -> int:
    return int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))


def _mapped_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """The tensors of a safetensors file, mapped: through PyTorch, which unlike NumPy does not copy them."""
    try:
        with safe_open(str(path), "pt") as file:
            return {name: file.get_tensor(name).numpy() for name in ("items", "queries")}
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}): delete its folder and run the stage again") from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One builder at a time; the system lets go when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
