"""An approximate index as files: `index.faiss`, and `index.json` that says what it is and how good."""

from __future__ import annotations

import hashlib
from pathlib import Path

import faiss
import numpy as np
import torch

from r4t.catalog.index.ann import AnnIndex
from r4t.catalog.index.build import Quality, build_ann
from r4t.catalog.index.contract import Index
from r4t.catalog.index.exact import CPU, ExactIndex
from r4t.config import Index as Settings
from r4t.errors import UserError
from r4t.lineage import atomic_path, file_hash, read_json, write_json
from r4t.types import Floats

FILES = ["index.faiss", "index.json"]
ROWS = 1 << 16  # hashed at a time


def save_index(folder: Path, index: AnnIndex, vectors: Floats, quality: Quality) -> None:
    """Writes the index over `vectors` [N, d] and its description, each atomically, the description last."""
    path = folder / FILES[0]
    with atomic_path(path) as temporary:
        faiss.write_index(index.faiss, str(temporary))
    description = {
        "schema": 1,
        "kind": index.settings.kind,
        "parameters": index.settings.model_dump(mode="json"),
        "items": len(vectors),
        "dim": index.dim,
        "vectors": vectors_hash(vectors),
        "file": file_hash(path),
        "bytes": path.stat().st_size,
        **quality.as_dict(),
    }
    write_json(folder / FILES[1], description)


def load_index(folder: Path, vectors: Floats, settings: Settings, *, writable: bool = False) -> AnnIndex:
    """Opens a saved index over the same vectors: memory-mapped, or in memory where items shall be added.

    FAISS trusts what it reads, so the file's hash is checked first. Raises UserError for a missing or altered file, and
    for an index of other vectors or settings.
    """
    path, again = folder / FILES[0], f"delete {folder} and run `r4t run CONFIG --stage prepare` again"
    if not all((folder / name).is_file() for name in FILES):
        raise UserError(f"index.kind is '{settings.kind}' and {folder} holds no {' and '.join(FILES)}: {again}")
    description = read_json(folder / FILES[1])
    if description.get("file") != file_hash(path):
        raise UserError(f"{path} is not the file that {FILES[1]} describes: {again}")
    if description.get("vectors") != vectors_hash(vectors):
        raise UserError(f"{path} was built over other item vectors than those of this dataset: {again}")
    if description.get("parameters") != settings.model_dump(mode="json"):
        raise UserError(f"{path} was built with other settings than the section 'index' of this configuration: {again}")
    found = faiss.read_index(str(path), 0 if writable else faiss.IO_FLAG_MMAP_IFC)
    return AnnIndex(vectors, found, settings, writable=writable)


def open_index(folder: Path, vectors: Floats, settings: Settings, device: torch.device = CPU) -> Index:
    """The index of a prepare folder: approximate kinds from their files, an exact one made anew."""
    return ExactIndex(vectors, device) if settings.kind == "exact" else load_index(folder, vectors, settings)


def write_index(folder: Path, vectors: Floats, settings: Settings, queries: Floats) -> list[str]:
    """Builds and saves what `open_index` will need; returns the names of the files, none for an exact index."""
    if settings.kind == "exact":
        return []
    index, quality = build_ann(vectors, settings, queries)
    save_index(folder, index, vectors, quality)
    return FILES


def vectors_hash(vectors: Floats) -> str:
    """SHA-256 of the shape and the values of [N, d], as hexadecimal; memory-mapped arrays are read in pieces."""
    digest = hashlib.sha256(f"{vectors.dtype} {vectors.shape} ".encode())
    for start in range(0, len(vectors), ROWS):
        digest.update(np.ascontiguousarray(vectors[start : start + ROWS]).data)
    return digest.hexdigest()
