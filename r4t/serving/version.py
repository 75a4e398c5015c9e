"""One version of what is served, opened whole: retriever, items, methods. Nothing of it ever changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from r4t.errors import UserError
from r4t.lineage import read_manifest
from r4t.retriever import R4TRetriever
from r4t.retriever.engines import EngineName
from r4t.serving.catalogue import Catalogue
from r4t.serving.encoders import check_encoder
from r4t.serving.lineage import lineage_of, with_writer
from r4t.serving.methods import MMR, Compiled, Directions, Found, NoFanout, ServedMethod, Writer, Written
from r4t.types import Floats

DEFAULT_TRADE_OFF = 0.5
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One query of a request, as text or as a vector."""

    text: str | None
    vector: Floats | None
    method: str
    k: int
    seed: int
    spread: float
    filters: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What one version found for a query, and the time of the batch that it was part of."""

    version: Version
    vector: Floats
    found: Found
    seconds: Mapping[str, float]
    """encode, generate, search."""


class Version:
    """Made by `open_version`."""

    def __init__(
        self,
        exported: str,
        lineage: str,
        name: str,
        catalogue: Catalogue,
        methods: Sequence[ServedMethod],
        retriever: R4TRetriever,
    ) -> None:
        self.exported = exported
        """Names the exported folders alone: what a watcher compares."""
        self.lineage, self.name, self.catalogue = lineage, name, catalogue
        self.methods = {method.name: method for method in methods}
        self.default = next(method.name for method in methods if isinstance(method, Compiled))
        self.examples: list[str] = list(retriever.description.examples)
        self.dim = retriever.description.dim
        self._retriever = retriever
        self._working = threading.Lock()

    def answer(self, asked: Sequence[Asked]) -> list[Answered]:
        """Works on queries of several requests together. An answer depends on its own query alone.

        Safe from several threads: only a language model writes while others work.
        """
        clock = _Clock()
        with clock.of("generate"):
            written = self._written(asked)
        with self._working:
            with clock.of("encode"):
                vectors = self._vectors(asked)
            with clock.of("generate"):
                directions = self._directions(asked, vectors, written)
            with clock.of("search"):
                found = self._search(asked, vectors, directions)
        return [
            Answered(version=self, vector=vector, found=one, seconds=clock.seconds)
            for vector, one in zip(vectors, found, strict=True)
        ]

    def _written(self, asked: Sequence[Asked]) -> list[tuple[str, ...]]:
        made: dict[int, tuple[str, ...]] = {}
        for name, places in _groups(asked, lambda one: one.method).items():
            texts, seeds = [asked[place].text for place in places], [asked[place].seed for place in places]
            made |= zip(places, self.methods[name].written(texts, seeds), strict=True)
        return [made[place] for place in range(len(asked))]

    def _directions(
        self, asked: Sequence[Asked], vectors: Floats, written: Sequence[tuple[str, ...]]
    ) -> list[Directions]:
        made: dict[int, Directions] = {}
        for name, places in _groups(asked, lambda one: one.method).items():
            texts, seeds = [written[place] for place in places], [asked[place].seed for place in places]
            made |= zip(places, self.methods[name].directions(vectors[places], texts, seeds), strict=True)
        return [made[place] for place in range(len(asked))]

    def _search(self, asked: Sequence[Asked], vectors: Floats, directions: Sequence[Directions]) -> list[Found]:
        found: dict[int, Found] = {}
        for places in _groups(asked, _search_key).values():
            first, given = asked[places[0]], [directions[place] for place in places]
            index = self.catalogue.within(first.filters)
            if index.size:
                k = min(first.k, index.size)
                sets = self.methods[first.method].search(index, vectors[places], given, k, first.spread)
            else:
                sets = [Found(items=(), by=(), scores=(), directions=one) for one in given]
            found |= zip(places, sets, strict=True)
        return [found[place] for place in range(len(asked))]

    def _vectors(self, asked: Sequence[Asked]) -> Floats:
        vectors = np.empty((len(asked), self.dim), dtype=np.float32)
        texts = {place: one.text for place, one in enumerate(asked) if one.text is not None}
        if texts:
            vectors[list(texts)] = self._retriever.encode(list(texts.values()))
        for place, one in enumerate(asked):
            if one.vector is not None:
                vectors[place] = one.vector
        return vectors


def open_version(
    folders: Sequence[Path],
    engine: EngineName,
    threads: int | None = None,
    writer: Writer | None = None,
    encoder_path: Path | None = None,
) -> Version:
    """Opens exported folders, the first of which brings the items; the others hold retrievers of the same run.

    writer: the language model of r4t_folm, which then is part of the version; encoder_path: the files of an encoder
    that is in no package. Raises UserError for folders that are damaged, do not belong together, need an encoder that
    cannot be served, or change meanwhile.
    """
    exported = lineage_of(folders)
    check_encoder(folders[0], encoder_path)
    retrievers = [
        R4TRetriever.from_pretrained(folder, engine=engine, threads=threads, encoder_path=encoder_path)
        for folder in folders
    ]
    first = retrievers[0]
    for other in retrievers[1:]:
        if other.encoder_hash != first.encoder_hash:
            raise UserError(f"{other.folder} is of another encoder than {first.folder}: serve them apart")
    catalogue = Catalogue(folders[0], first.encoder_hash, exact=engine == "torch")
    config = (read_manifest(folders[0]) or {}).get("config", {})
    trade_off = float(config.get("evaluate", {}).get("mmr_lambda", DEFAULT_TRADE_OFF))
    methods: list[ServedMethod] = [NoFanout(), MMR(catalogue.vectors, trade_off)]
    lineage = exported
    if writer is not None:
        methods.append(Written(writer, first))
        lineage = with_writer(exported, writer.lineage)
    methods += [Compiled(method_of(one), one) for one in retrievers]
    made = Version(exported, lineage, first.description.name, catalogue, methods, first)
    for method in made.methods:  # so that a version that cannot answer never takes over, and the first request is fast
        made.answer([Asked(text="warm", vector=None, method=method, k=1, seed=0, spread=1.0, filters={})])
    if lineage_of(folders) != exported:
        raise UserError(f"{folders[0]} changed while it was opened")
    return made


def method_of(retriever: R4TRetriever) -> str:
    """What the evaluation of a run calls the retriever."""
    made_from = retriever.description.lineage
    return "r4t_distilled" if "distill" in made_from else "r4t_diffusion"


def _search_key(one: Asked) -> Hashable:
    filters = tuple(sorted((name, tuple(values)) for name, values in one.filters.items()))
    return one.method, one.k, one.spread, filters


def _groups(asked: Sequence[Asked], key: Callable[[Asked], Hashable]) -> dict[Any, list[int]]:
    groups: dict[Any, list[int]] = {}
    for place, one in enumerate(asked):
        groups.setdefault(key(one), []).append(place)
    return groups


class _Clock:
    """Seconds spent in named parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name, self._start = "", 0.0

    def of(self, name: str) -> _Clock:
        self._name = name
        return self

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self._name] = self.seconds.get(self._name, 0.0) + time.perf_counter() - self._start
