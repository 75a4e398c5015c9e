"""What every encoder of the shared space does: text (and, with an image tower, images) to unit vectors."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from r4t.errors import UserError
from r4t.types import Floats

if TYPE_CHECKING:
    from PIL.Image import Image

    Picture: TypeAlias = Path | Image


class Encoder(ABC):
    """Text to unit vectors of one shared space. Frozen: no method changes its parameters, no gradient reaches them."""

    name: str
    dim: int
    content: str | None = None
    """SHA-256 of the files behind `encoder.path`; None for an encoder that ships in a package."""
    alone: bool = False
    """Whether a text's vector is the same to the last bit whatever other texts are encoded with it."""

    def encode(self, texts: Sequence[str]) -> Floats:
        """[n] texts -> [n, dim] float32 unit rows, in order. A blank text becomes the first unit vector.

        Raises UserError when a vector is not finite or has no direction.
        """
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        written = np.array([bool(text.strip()) for text in texts], dtype=bool)
        if written.any():
            vectors[written] = self._embed([text for text in texts if text.strip()])
        vectors[~written, 0] = 1.0
        return unit_rows(vectors, what=f"encoder {self.name}")

    def encode_images(self, images: Sequence[Picture]) -> Floats:
        """[n] image files or Pillow images -> [n, dim] float32 unit rows of the space of the texts, in order.

        Raises UserError for an encoder without an image tower, a file that is no image, a vector without direction.
        """
        if not images:
            return np.zeros((0, self.dim), dtype=np.float32)
        return unit_rows(self._embed_images(images), what=f"encoder {self.name}")

    def fingerprint(self) -> str:
        """SHA-256 of the name, the width and all that decides the vectors: parameters in memory, or their files."""
        digest = hashlib.sha256(f"{self.name}:{self.dim}".encode())
        for part in self._state():
            digest.update(part)
        return digest.hexdigest()

    @abstractmethod
    def _embed(self, texts: list[str]) -> Floats:
        """[n] non-blank texts -> [n, dim], of any length, cut to `dim`."""

    def _embed_images(self, _images: Sequence[Picture], /) -> Floats:
        """[n] images -> [n, dim], of any length, cut to `dim`."""
        raise UserError(
            f"encoder {self.name} has no image tower: set encoder.name to open_clip, or remove encoder.image_column"
        )

    @abstractmethod
    def _state(self) -> list[bytes]: ...


def unit_rows(vectors: Floats, *, what: str) -> Floats:
    """[n, d] -> the same rows at length 1. Raises UserError on NaN, infinite or zero rows."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
    if bad.size:
        raise UserError(
            f"{what} gave {bad.size} vectors of {len(vectors)} that are NaN, infinite or zero (first: row {bad[0]}):"
            " remove that text, or choose another encoder.name"
        )
    return np.asarray(vectors / lengths, dtype=np.float32)


def checked_dim(name: str, dim: int | None, full: int) -> int:
    """`dim`, or `full` for None. Raises UserError for a width the encoder does not have."""
    if dim is None:
        return full
    if not 1 <= dim <= full:
        raise UserError(f"encoder {name} has {full} columns, not {dim}: set encoder.dim to at most {full}")
    return dim
