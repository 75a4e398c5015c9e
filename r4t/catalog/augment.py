"""More training sets from those that people made (paper C.2), composed from item vectors without a language model.

A copy keeps a part of a set (its seed), and puts in the place of the rest what is near to it: a pool of the set's own
items and their neighbours, a random shortlist of that pool, and from the shortlist what suits the whole set and repeats
nothing chosen. Only the training split is read, so nothing held out can come back through a copy.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from r4t.catalog.index import ExactIndex
from r4t.catalog.source import Item
from r4t.config import Augment
from r4t.types import Floats, Ints, Query

REDUNDANCY = 0.5  # penalty on similarity to the items already chosen
TEMPLATES = ("{title} with {item}", "{title} featuring {item}", "{title} around {item}")
MAX_NAME_WORDS = 4  # a longer item name would drown the title


def recompose(
    items: Sequence[Item], queries: Sequence[Query], vectors: Floats, settings: Augment, seed: int
) -> Iterator[Query]:
    """`settings.copies` recomposed sets of each training query with references, a function of the arguments alone.

    `vectors` [N, d] are the items' unit rows. A copy holds `settings.size` items, fewer where the catalogue is smaller.
    """
    training = training_sets(queries)
    neighbours = _neighbours(vectors, training, settings.pool)
    for query in training:
        centre = vectors[list(query.references)].mean(axis=0)
        for copy in range(settings.copies):
            rng = generator(seed, query.query_id, copy)
            own, others = _draw_pool(rng, query.references, neighbours, settings.pool)
            kept = own[: seed_size(rng, len(query.references), settings)]
            rest = rng.permutation([*own[len(kept) :], *others])[: settings.shortlist - len(kept)]
            rows = _complete(kept, rest.astype(np.int64), vectors, centre, settings.size)
            title = _title(rng, query.text, [items[row].name for row in kept])
            yield copy_of(query, copy, title, rows)


def training_sets(queries: Sequence[Query]) -> list[Query]:
    """The queries whose sets may be recomposed."""
    return [query for query in queries if query.split == "train" and query.references and not query.origin]


def copy_of(query: Query, number: int, text: str, rows: Sequence[int]) -> Query:
    """The training query of one recomposed set of `query`."""
    return Query(
        query_id=f"{query.query_id}-copy-{number}",
        text=text,
        split="train",
        references=tuple(rows),
        origin=query.query_id,
    )


def generator(seed: int, query_id: str, copy: int) -> np.random.Generator:
    """Random numbers of one copy: the same whatever other sets there are, and in whatever order."""
    digest = hashlib.sha256(f"{seed}:{query_id}:{copy}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16]))


def seed_size(rng: np.random.Generator, items: int, settings: Augment) -> int:
    """How many of a set's items a copy keeps: a whole number within the share, at least one.

    It fills no larger share of the copy either, so that a large set too is recomposed and not merely cut.
    """
    low, high = settings.seed_share
    most = max(1, math.floor(high * min(items, settings.size) + 1e-9))
    least = min(most, max(1, math.ceil(low * items - 1e-9)))
    return int(rng.integers(least, most + 1))


def _neighbours(vectors: Floats, training: Sequence[Query], width: int) -> dict[int, list[int]]:
    """The `width` nearest items of each item of the training sets, nearest first."""
    rows = sorted({row for query in training for row in query.references})
    _, near = ExactIndex(vectors).search(vectors[rows], width)
    return dict(zip(rows, near.tolist(), strict=True))


def _draw_pool(
    rng: np.random.Generator, references: Sequence[int], neighbours: Mapping[int, Sequence[int]], size: int
) -> tuple[list[int], list[int]]:
    """Up to half a pool of the set's own items in random order, and the neighbours of each of them in turn."""
    own = rng.permutation(references)[: size // 2].tolist()
    in_turn = dict.fromkeys(row for rank in zip(*(neighbours[row] for row in own), strict=True) for row in rank)
    others = [row for row in in_turn if row not in references]
    return own, others[: size - len(own)]


def _complete(kept: Sequence[int], candidates: Ints, vectors: Floats, centre: Floats, size: int) -> list[int]:
    """`kept` and the candidates that suit `centre` [d] best and repeat least, one after the other, up to `size`."""
    chosen = list(kept)
    suits = vectors[candidates] @ centre
    repeats = (vectors[candidates] @ vectors[chosen].T).max(axis=1)
    for _ in range(min(size - len(kept), len(candidates))):
        best = int(np.argmax(suits - REDUNDANCY * repeats))
        chosen.append(int(candidates[best]))
        suits[best] = -np.inf
        repeats = np.maximum(repeats, vectors[candidates] @ vectors[chosen[-1]])
    return chosen


def _title(rng: np.random.Generator, title: str, names: Sequence[str]) -> str:
    """The set's title with the name of an item that was kept, or alone where every such name is long."""
    short = [name for name in names if len(name.split()) <= MAX_NAME_WORDS]
    if not short:
        return title
    template = TEMPLATES[rng.integers(len(TEMPLATES))]
    return template.format(title=title, item=short[rng.integers(len(short))])
