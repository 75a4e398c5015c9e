"""Vectors that somebody else computed: a table from text to vector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from r4t.catalog.encoders.base import Encoder, checked_dim
from r4t.catalog.encoders.files import content_hash
from r4t.errors import UserError, did_you_mean
from r4t.types import Floats


class PrecomputedEncoder(Encoder):
    """Looks texts up in a Parquet file, or a folder of them, with the columns `text` and `vector`.

    Raises UserError for a table that cannot be used, and for a text that it does not have.
    """

    name = "precomputed"

    def __init__(self, path: Path, dim: int | None) -> None:
        self._path = path
        texts, vectors = _read_all(path)
        self._row = {text: row for row, text in enumerate(texts)}
        if len(self._row) < len(texts):
            twice = next(text for row, text in enumerate(texts) if self._row[text] != row)
            raise UserError(f"{path} has several vectors for the text {twice!r}: keep one (encoder.path)")
        self.dim = checked_dim(self.name, dim, vectors.shape[1])
        self._vectors = np.ascontiguousarray(vectors[:, : self.dim])
        self._vectors.flags.writeable = False
        self.content = content_hash(path)

    def _embed(self, texts: list[str]) -> Floats:
        missing = [text for text in texts if text not in self._row]
        if missing:
            raise UserError(
                f"{self._path} has no vector for the text {missing[0]!r} ({len(missing)} of {len(texts)} texts are not"
                " in it): add a row for each, or choose an encoder.name that reads any text"
            )
        return self._vectors[[self._row[text] for text in texts]]

    def _state(self) -> list[bytes]:
        return [str(self.content).encode()]


def _read_all(path: Path) -> tuple[list[str], Floats]:
    if not path.exists():
        raise UserError(f"nothing at {path}: encoder.path must be a Parquet file or folder with columns text, vector")
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} holds no .parquet file: encoder.path must name text and vector pairs in Parquet")
    parts = [_read(file) for file in files]
    widths = {vectors.shape[1]: file for file, (_, vectors) in zip(files, parts, strict=True)}
    if len(widths) > 1:
        raise UserError(f"the files of {path} have vectors of {sorted(widths)} columns: make them equally wide")
    return [text for texts, _ in parts for text in texts], np.concatenate([vectors for _, vectors in parts])


def _read(path: Path) -> tuple[list[str], Floats]:
    """[n] texts and [n, d] float32 vectors of one file."""
    try:
        table = pq.ParquetFile(path).read()
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} (encoder.path) is not a Parquet file: {error}") from None
    for name in ("text", "vector"):
        if name not in table.column_names:
            hint = did_you_mean(name, table.column_names)
            raise UserError(f"{path} has no column '{name}'{hint}: its columns are {', '.join(table.column_names)}")
    if table.num_rows == 0:
        raise UserError(f"{path} has no rows: encoder.path must hold a vector for every text")
    if table["text"].null_count or table["vector"].null_count:
        raise UserError(f"{path} has rows without a text or a vector: fill them in or remove them")
    texts = table["text"].to_pylist()
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{path}: column 'text' has type {table.schema.field('text').type}, it must be text")
    return texts, _vectors(path, table["vector"].combine_chunks(), texts)


def _vectors(path: Path, column: pa.Array, texts: list[str]) -> Floats:
    kind = column.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not pa.types.is_floating(kind.value_type):
        raise UserError(f"{path}: column 'vector' has type {kind}, it must be lists of floating-point numbers")
    values = column.flatten().to_numpy(zero_copy_only=False)
    width, rest = divmod(len(values), len(texts))
    lengths = column.value_lengths().to_numpy() if not pa.types.is_fixed_size_list(kind) else np.array([width])
    if rest or width == 0 or (lengths != width).any():
        raise UserError(f"{path}: the vectors have {lengths.min()} to {lengths.max()} columns: make them equally wide")
    vectors = np.asarray(values, dtype=np.float32).reshape(len(texts), width)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if bad.size:
        raise UserError(
            f"{path}: {bad.size} vectors hold NaN or infinite values (first: {texts[bad[0]]!r}): compute them again"
        )
    return vectors
