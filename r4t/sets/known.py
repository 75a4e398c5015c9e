"""Sub-queries that were written before, with their vectors and nearest items: policies repeat themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from r4t.catalog.encoders import Encoder
from r4t.catalog.index import AnnIndex, Index
from r4t.types import Floats, Ints

KEPT_BYTES = 64 << 20  # for each scorer


class KnownTexts:
    """Encodes and searches texts, those it knows already only once.

    Keeps the first that come, which are the frequent ones, until `room` bytes are full; none at all where a text's
    vector (`Encoder.alone`) or an approximate search could depend on the others of a call. So the results are the same
    to the last bit whatever was looked up before.
    """

    def __init__(self, encoder: Encoder, index: Index, n: int, room: int = KEPT_BYTES) -> None:
        self.encoder, self.index, self.n = encoder, index, n
        wide = min(n, index.size)
        alone = encoder.alone and not isinstance(index, AnnIndex)
        size = room // (encoder.dim * 4 + wide * 12) if alone else 0
        self._place: dict[str, int] = {}
        self._vectors = np.empty((size, encoder.dim), dtype=np.float32)  # pages are taken as they are written
        self._cosine = np.empty((size, wide), dtype=np.float32)
        self._items = np.empty((size, wide), dtype=np.int64)

    def __call__(self, texts: Sequence[str]) -> tuple[Floats, Floats, Ints]:
        """T different texts -> unit vectors [T, d], cosines [T, n] and items [T, n], nearest first."""
        place = np.array([self._place.get(text, -1) for text in texts], dtype=np.int64)
        known, new = np.flatnonzero(place >= 0), np.flatnonzero(place < 0)
        vectors = self.encoder.encode([texts[i] for i in new.tolist()])
        cosine, items = self.index.search(vectors, self.n)
        self._keep([texts[i] for i in new[: len(self._vectors) - len(self._place)].tolist()], vectors, cosine, items)
        if not len(known):
            return vectors, cosine, items
        merged = []
        for fresh, kept in ((vectors, self._vectors), (cosine, self._cosine), (items, self._items)):
            whole = np.empty((len(texts), kept.shape[1]), dtype=kept.dtype)
            whole[new], whole[known] = fresh, kept[place[known]]
            merged.append(whole)
        return merged[0], merged[1], merged[2]

    def _keep(self, texts: Sequence[str], vectors: Floats, cosine: Floats, items: Ints) -> None:
        rows = slice(len(self._place), len(self._place) + len(texts))
        self._vectors[rows], self._cosine[rows] = vectors[: len(texts)], cosine[: len(texts)]
        self._items[rows] = items[: len(texts)]
        self._place.update(zip(texts, range(rows.start, rows.stop), strict=True))
