"""Principal directions of the items: the projection that loses least of their cosines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from r4t.catalog.encoders.base import Encoder, unit_rows
from r4t.errors import UserError
from r4t.lineage import read_tensors, write_tensors
from r4t.types import Floats

if TYPE_CHECKING:
    from r4t.catalog.encoders.base import Picture

REDUCTION = "reduction.safetensors"
ROWS = 65_536  # summed at a time in float64
RANK_TOLERANCE = 1e-10  # of the largest eigenvalue; rounding of float32 vectors leaves about 1e-14


class ReducedEncoder(Encoder):
    """Another encoder followed by a projection [D, d] of its columns."""

    def __init__(self, base: Encoder, projection: Floats) -> None:
        self.name, self.content, self.dim = base.name, base.content, projection.shape[1]
        self._base, self._projection = base, projection

    def project(self, vectors: Floats) -> Floats:
        """[n, D] unit rows of the other encoder -> [n, d] unit rows."""
        return unit_rows(vectors @ self._projection, what=f"encoder {self.name}, reduced by pca,")

    def _embed(self, texts: list[str]) -> Floats:
        return self._base.encode(texts) @ self._projection

    def _embed_images(self, images: Sequence[Picture], /) -> Floats:
        return self._base.encode_images(images) @ self._projection

    def _state(self) -> list[bytes]:
        return [self._base.fingerprint().encode(), self._projection.tobytes()]


def fit_projection(vectors: Floats, dim: int) -> Floats:
    """[N, D] item vectors -> [D, dim]: their top right-singular vectors, not centred (cosines have a fixed origin).

    Columns fall in singular value; the largest entry of each is positive, so that a fit is the same everywhere.
    Raises UserError when there are fewer than `dim` columns, or the items span fewer directions.
    """
    full = vectors.shape[1]
    if dim > full:
        raise UserError(f"encoder.reduce pca cannot make {dim} columns of {full}: set encoder.dim to at most {full}")
    gram = np.zeros((full, full))
    for start in range(0, len(vectors), ROWS):
        part = vectors[start : start + ROWS].astype(np.float64)
        gram += part.T @ part
    values, basis = np.linalg.eigh(gram)
    rank = int((values > RANK_TOLERANCE * values[-1]).sum())
    if rank < dim:
        raise UserError(
            f"encoder.reduce pca: the {len(vectors)} items span {rank} directions: set encoder.dim to at most {rank}"
        )
    top = basis[:, ::-1][:, :dim]
    signs = np.sign(top[np.abs(top).argmax(axis=0), np.arange(dim)])
    return np.ascontiguousarray(top * signs, dtype=np.float32)


def save_projection(folder: Path, projection: Floats) -> None:
    """Writes the projection [D, d] into a prepare folder, atomically."""
    write_tensors(folder / REDUCTION, {"projection": projection})


def load_projection(folder: Path, full: int) -> Floats:
    """The projection [full, d] of a prepare folder. Raises UserError when it is missing or does not fit."""
    path = folder / REDUCTION
    if not path.is_file():
        raise UserError(f"{path} is missing, and encoder.reduce is pca: run `r4t run CONFIG --stage prepare` again")
    projection = read_tensors(path)["projection"]
    if projection.ndim != 2 or projection.shape[0] != full:
        raise UserError(
            f"{path} reduces vectors of {projection.shape[0]} columns, the encoder has {full}: encoder.path has changed"
            " since the prepare stage; restore it, or give the run a new directory"
        )
    return projection
