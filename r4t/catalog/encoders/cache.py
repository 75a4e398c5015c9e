"""Vectors of a whole catalogue, kept between runs under the hash of all that decides them.

Nothing else depends on them: they may be deleted at any time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from r4t.cache import cache_folder
from r4t.errors import UserError
from r4t.lineage import read_tensors, write_tensors
from r4t.types import Floats


def cache_key(fingerprint: str, contents: Iterable[str], kind: str = "text") -> str:
    """SHA-256 over an encoder's fingerprint and, in order, the texts (or the hashes of the images) it encodes."""
    digest = hashlib.sha256(f"{kind}:{fingerprint}".encode())
    for content in contents:
        encoded = content.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def read_cached(key: str, rows: int, dim: int) -> Floats | None:
    """[rows, dim] vectors kept under `key`; None when there are none, or when the entry is damaged."""
    path = _path(key)
    if not path.is_file():
        return None
    try:
        stored = read_tensors(path)
    except UserError:
        return None
    vectors, digest = stored.get("vectors"), stored.get("digest")
    if vectors is None or digest is None or vectors.shape != (rows, dim) or vectors.dtype != np.float32:
        return None
    return vectors if np.array_equal(digest, _digest(vectors)) else None


def write_cached(key: str, vectors: Floats) -> str | None:
    """Keeps `vectors` [n, d] under `key`. Returns why that failed, or None: a full cache must not stop a run."""
    try:
        write_tensors(_path(key), {"vectors": vectors, "digest": _digest(vectors)})
    except (OSError, UserError) as error:
        return str(error)
    return None


def _path(key: str) -> Path:
    return cache_folder("vectors") / f"{key}.safetensors"


def _digest(vectors: Floats) -> NDArray[np.uint8]:
    return np.frombuffer(hashlib.sha256(np.ascontiguousarray(vectors).tobytes()).digest(), dtype=np.uint8)
