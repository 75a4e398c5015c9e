"""Items' own vectors, from a column of lists or from a NumPy file, checked before anything is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from r4t.catalog.encoders import unit_rows
from r4t.catalog.source import Item
from r4t.errors import UserError
from r4t.types import Floats


def column_vectors(column: pa.ChunkedArray, what: str) -> Floats:
    """A column of N lists of w numbers each -> [N, w].

    Raises UserError for lists of several lengths, nulls, and rows that are not finite or zero.
    """
    widths = pc.list_value_length(column).fill_null(0).to_numpy()
    other = np.flatnonzero(widths != widths[0])
    if other.size:
        raise UserError(
            f"{what} holds vectors of several widths (row 0: {widths[0]}, row {other[0]}: {widths[other[0]]}):"
            " give every item a vector of one model"
        )
    values = pc.list_flatten(column).to_numpy().astype(np.float32)
    return _usable(values.reshape(len(column), widths[0]), what)


def read_vectors(path: Path, key: str) -> Floats:
    """The [N, w] array of a NumPy file. Raises UserError when it is none, holds objects, or has unusable rows."""
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"no file at {path}: {key} must be the path of a NumPy array [items, width]") from None
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path} ({key}) is not a NumPy array file of plain numbers: {error}") from None
    numeric = isinstance(array, np.ndarray) and array.dtype.kind in "fiu"
    if not numeric or array.ndim != 2:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise UserError(f"{path} ({key}) holds {found}: save one array of numbers with two dimensions, items x width")
    return _usable(array.astype(np.float32, copy=False), f"{path} ({key})")


def with_vectors(items: Sequence[Item], vectors: Floats, what: str) -> list[Item]:
    """The items, each with its row of [N, w]. Raises UserError when there are more or fewer rows than items."""
    if len(vectors) != len(items):
        raise UserError(f"{what} has {len(vectors)} rows for {len(items)} items: row i must be the i-th item's vector")
    return [replace(item, vector=vector) for item, vector in zip(items, vectors, strict=True)]


def cut_to(vectors: Floats, dim: int) -> Floats:
    """[N, w] -> [N, dim], the first columns at unit length. Raises UserError when w is smaller than `dim`."""
    if vectors.shape[1] < dim:
        raise UserError(
            f"the items' own vectors have {vectors.shape[1]} columns, encoder.dim is {dim}:"
            f" set encoder.dim to at most {vectors.shape[1]}"
        )
    return unit_rows(vectors[:, :dim], what=f"cutting the items' own vectors to encoder.dim={dim}")


def _usable(vectors: Floats, what: str) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1)
    for problem, bad in (("NaN or infinite", ~np.isfinite(lengths)), ("zero", lengths == 0)):
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise UserError(
                f"{what}: {bad.sum()} of {len(vectors)} vectors are {problem} (first: row {first}): fix them"
            )
    return vectors
