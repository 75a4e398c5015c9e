"""Methods as they are served: directions first, for all requests of a batch together, then a search for each kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from r4t.evaluation.labels import network_calls
from r4t.mmr import MMR_POOL, mmr_select
from r4t.retriever import ItemIndex, R4TRetriever
from r4t.retriever.search import search_sets
from r4t.retriever.spread import spread_rows
from r4t.types import Floats, Ints

Write = Callable[[Sequence[str], Sequence[int]], list[tuple[str, ...]]]
"""(queries, a seed for each) -> the sub-queries that a language model writes; none where its answer is unusable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A language model. Safe from several threads."""

    write: Write
    lineage: str
    """Names the exact model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Directions:
    """What is searched for one query."""

    rows: Floats | None = None
    """[L, d] unit rows; None for a method without directions."""
    texts: tuple[str, ...] = ()
    """Of the rows, where they have any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A set: rows of the catalogue, what found each, and its score."""

    items: tuple[int, ...]
    by: tuple[int, ...]
    scores: tuple[float, ...]
    directions: Directions


class ServedMethod(Protocol):
    name: str
    title: str
    description: str
    controls: tuple[str, ...]
    writes: bool
    """Whether a language model writes what is searched. That takes so long that others should not wait for it."""

    def written(self, texts: Sequence[str | None], seeds: Sequence[int]) -> list[tuple[str, ...]]:
        """What a language model writes to each query; nothing without one. Safe from several threads."""
        ...

    def directions(
        self, vectors: Floats, written: Sequence[tuple[str, ...]], seeds: Sequence[int]
    ) -> list[Directions]: ...

    def search(
        self, index: ItemIndex, vectors: Floats, directions: Sequence[Directions], k: int, spread: float
    ) -> list[Found]:
        """Queries [B, d] and what `directions` made of them -> sets of at most k different items."""
        ...


class _Wordless:
    """A method without a language model."""

    writes = False

    def written(self, texts: Sequence[str | None], seeds: Sequence[int]) -> list[tuple[str, ...]]:  # noqa: ARG002
        return [()] * len(texts)


class _Plain(_Wordless, ABC):
    """A method without directions: one list of items for each query."""

    controls: tuple[str, ...] = ()

    def directions(
        self,
        vectors: Floats,
        written: Sequence[tuple[str, ...]],  # noqa: ARG002
        seeds: Sequence[int],  # noqa: ARG002
    ) -> list[Directions]:
        return [Directions()] * len(vectors)

    def search(
        self,
        index: ItemIndex,
        vectors: Floats,
        directions: Sequence[Directions],
        k: int,
        spread: float,  # noqa: ARG002
    ) -> list[Found]:
        scores, rows = self._rank(index, vectors, k)
        places = tuple(range(rows.shape[1]))
        return [
            Found(items=tuple(its_rows), by=places, scores=tuple(its_scores), directions=given)
            for its_rows, its_scores, given in zip(rows.tolist(), scores.tolist(), directions, strict=True)
        ]

    @abstractmethod
    def _rank(self, index: ItemIndex, vectors: Floats, k: int) -> tuple[Floats, Ints]:
        """[B, d] -> cosines with the query and rows of the catalogue, both [B, k]."""


class NoFanout(_Plain):
    name, title = "no_fanout", "No fan-out"
    description = "The items nearest to the query: plain search."

    def _rank(self, index: ItemIndex, vectors: Floats, k: int) -> tuple[Floats, Ints]:
        return index.nearest(vectors, k)


class MMR(_Plain):
    """Over the query's nearest items, as `r4t.methods.MMR`."""

    name, title = "mmr", "MMR"
    description = "Picks, one by one, items near the query and far from those picked before."

    def __init__(self, vectors: Floats, trade_off: float) -> None:
        self.vectors, self.trade_off = vectors, trade_off

    def _rank(self, index: ItemIndex, vectors: Floats, k: int) -> tuple[Floats, Ints]:
        scores, rows = index.nearest(vectors, max(MMR_POOL, k))
        chosen = mmr_select(scores, self.vectors[rows], min(k, rows.shape[1]), self.trade_off)
        return np.take_along_axis(scores, chosen, axis=1), np.take_along_axis(rows, chosen, axis=1)


class Compiled(_Wordless):
    """A diffusion retriever, or a student of it."""

    controls: tuple[str, ...] = ("seed", "spread")

    def __init__(self, name: str, retriever: R4TRetriever) -> None:
        self.name, self.retriever = name, retriever
        self.title = {"r4t_diffusion": "R4T-Diffusion", "r4t_distilled": "R4T-Distilled"}.get(name, name)
        drawn = f"{retriever.description.rows} directions together, in {network_calls(retriever.calls)}"
        self.description = f"A diffusion model draws {drawn}."

    def directions(
        self,
        vectors: Floats,
        written: Sequence[tuple[str, ...]],  # noqa: ARG002
        seeds: Sequence[int],
    ) -> list[Directions]:
        return [Directions(rows=rows) for rows in self.retriever.embed(vectors, seed=list(seeds))]

    def search(
        self, index: ItemIndex, vectors: Floats, directions: Sequence[Directions], k: int, spread: float
    ) -> list[Found]:
        return _searched(index, vectors, directions, k, spread)


class Written:
    """R4T-FOLM: a language model writes the directions. An unusable answer is the plain query, as in the evaluation."""

    name, title = "r4t_folm", "R4T-FOLM"
    controls: tuple[str, ...] = ("seed", "spread")
    description = "The trained language model writes sub-queries, and each is searched."
    writes = True

    def __init__(self, writer: Writer, encoder: R4TRetriever) -> None:
        self._writer, self._encoder = writer, encoder

    def written(self, texts: Sequence[str | None], seeds: Sequence[int]) -> list[tuple[str, ...]]:
        return self._writer.write([text or "" for text in texts], seeds)

    def directions(
        self,
        vectors: Floats,
        written: Sequence[tuple[str, ...]],
        seeds: Sequence[int],  # noqa: ARG002
    ) -> list[Directions]:
        return [
            Directions(rows=self._encoder.encode(parts), texts=tuple(parts)) if parts else Directions(rows=vector[None])
            for parts, vector in zip(written, vectors, strict=True)
        ]

    def search(
        self, index: ItemIndex, vectors: Floats, directions: Sequence[Directions], k: int, spread: float
    ) -> list[Found]:
        return [
            _searched(index, vectors[place : place + 1], [given], k, spread)[0]
            for place, given in enumerate(directions)  # answers may differ in how many sub-queries they have
        ]


def _searched(
    index: ItemIndex, vectors: Floats, directions: Sequence[Directions], k: int, spread: float
) -> list[Found]:
    rows = spread_rows(np.stack([given.rows for given in directions if given.rows is not None]), vectors, spread)
    return [
        Found(
            items=tuple(int(item.item_id) for item in found.items),
            by=tuple(item.row for item in found.items),
            scores=tuple(item.score for item in found.items),
            directions=Directions(rows=found.rows, texts=given.texts),
        )
        for found, given in zip(search_sets(index, rows, k), directions, strict=True)
    ]
