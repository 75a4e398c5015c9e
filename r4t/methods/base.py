"""What every retrieval method has in common: queries in, sets of items out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from r4t.catalog.dataset import Dataset
from r4t.catalog.encoders import Encoder
from r4t.types import Floats, Ints, RetrievedSets


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryBatch:
    """B queries: their rows in the dataset, their texts, and their vectors [B, d]."""

    rows: Ints
    texts: tuple[str, ...]
    vectors: Floats

    @classmethod
    def of_rows(cls, dataset: Dataset, rows: Sequence[int] | Ints) -> QueryBatch:
        """Queries of the dataset, with the vectors that were made when it was prepared."""
        chosen = np.asarray(rows, dtype=np.int64)
        texts = tuple(dataset.queries[row].text for row in chosen)
        return cls(rows=chosen, texts=texts, vectors=dataset.query_vectors[chosen])

    @classmethod
    def encoded(cls, rows: Ints, texts: Sequence[str], encoder: Encoder) -> QueryBatch:
        """The same, encoding the texts now: what a request that arrives costs."""
        return cls(rows=rows, texts=tuple(texts), vectors=encoder.encode(list(texts)))

    def __len__(self) -> int:
        return len(self.texts)


class SetRetriever(Protocol):
    """A method. `name` is its key in `metrics.json`; `retrieve` repeats itself exactly for an equal seed."""

    @property
    def name(self) -> str: ...

    def retrieve(self, queries: QueryBatch, seed: int) -> RetrievedSets: ...


def arrange(ranked: Ints, k: int) -> Ints:
    """[B, k * n] ranked items as [B, k, n] so that the shown column `[:, :, 0]` holds the k best of them."""
    batch, total = ranked.shape
    return np.ascontiguousarray(ranked.reshape(batch, total // k, k).transpose(0, 2, 1))


def check_depth(k: int, n: int, n_items: int) -> None:
    """Raises ValueError when k lists of n items cannot be told apart from the whole database."""
    if k * n > n_items:
        raise ValueError(f"k x n = {k} x {n} = {k * n} exceeds the {n_items} items: lower fanout.n or fanout.k")
