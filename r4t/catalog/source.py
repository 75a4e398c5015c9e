"""What a catalogue is before it is encoded: items, queries, and a count of everything that was left out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from r4t.errors import UserError
from r4t.types import Floats, Query

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that can be retrieved. `text` is encoded, `name` is shown, `extra` are further columns."""

    item_id: str
    text: str
    name: str
    extra: dict[str, Any] = field(default_factory=dict)
    vector: Floats | None = field(default=None, compare=False, repr=False)
    """[w] the item's own vector, of any length; all items of a catalogue have one or none has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSet:
    """A human-made set: its title is a query, its items are the (weak) references."""

    title: str
    split: str
    item_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a loader found: every item in file order, the titled sets (none in OAR), and a count of what it left out."""

    items: list[Item]
    sets: list[ItemSet] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Items and queries; `Query.references` are rows of `items`. `dropped` counts what was left out, by reason."""

    items: list[Item]
    queries: list[Query]
    dropped: dict[str, int]

    @property
    def item_vectors(self) -> Floats | None:
        """[N, w] the items' own vectors, of any length, or None where an encoder makes them from the texts."""
        vectors = [item.vector for item in self.items if item.vector is not None]
        return np.stack(vectors) if vectors else None

    def repeated_texts(self) -> int:
        """How many items have the text of an item before them, but for case and spaces."""
        return len(self.items) - len({normalise(item.text) for item in self.items})


def joined(parts: Iterable[str | None]) -> str:
    """The parts with something to read, on one line, with commas between; empty when there is none."""
    cleaned = (" ".join(part.split()) for part in parts if part)
    return ", ".join(part for part in cleaned if any(map(str.isprintable, part)))


def normalise(text: str) -> str:
    """Lower case, single spaces, no outer space: two texts that normalise alike are the same query or name."""
    return " ".join(text.lower().split())


def split_of(key: str, seed: int) -> str:
    """`train`, `valid` or `test` in shares 8:1:1, a function of the key and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return {8: "valid", 9: "test"}.get(int.from_bytes(digest[:8]) % 10, "train")


def keep_texts(items: Iterable[Item], dropped: Counter[str]) -> list[Item]:
    """Items that have a text. Raises UserError when none is left."""
    every = list(items)
    kept = [item for item in every if item.text]
    dropped["items without a text"] += len(every) - len(kept)
    if not kept:
        raise UserError(
            f"none of {len(every)} items has a text: fill in the text column, or name it (data.columns.text)"
        )
    return kept


def keep_long_names(items: Iterable[Item], min_words: int, dropped: Counter[str]) -> list[Item]:
    """Items whose name has at least `min_words` words. Raises UserError when none is left."""
    every = list(items)
    kept = [item for item in every if len(item.name.split()) >= min_words]
    dropped["items with too few words (data.min_item_words)"] += len(every) - len(kept)
    if not kept:
        raise UserError(f"no item has {min_words} words: lower data.min_item_words")
    return kept


def staples(sets: Sequence[ItemSet], max_share: float) -> set[str]:
    """Ids of items that more than `max_share` of the training sets hold."""
    training = [s for s in sets if s.split == "train"]
    counts = Counter(item_id for s in training for item_id in set(s.item_ids))
    return {item_id for item_id, count in counts.items() if count > max_share * len(training)}


def compose(
    items: Sequence[Item], sets: Sequence[ItemSet], *, max_share: float, min_size: int, dropped: Counter[str]
) -> Catalog:
    """Makes the catalogue of weakly supervised retrieval (paper section 2.2): one query per title.

    Staples leave the database. Sets with fewer than `min_size` remaining items are dropped. Sets of one title become
    one query whose references are their union. A title of several splits stays in the most held-out one only.
    Raises UserError when a split ends up without queries.
    """
    common = staples(sets, max_share)
    kept = [item for item in items if item.item_id not in common]
    dropped["staple items (data.max_item_share)"] += len(items) - len(kept)
    row_of = {item.item_id: row for row, item in enumerate(kept)}

    home: dict[str, str] = {}
    for s in sets:
        key = normalise(s.title)
        home[key] = max(home.get(key, "train"), s.split, key=SPLITS.index)
    titles: dict[str, str] = {}
    references: dict[str, dict[int, None]] = {}
    for s in sets:
        key = normalise(s.title)
        rows = dict.fromkeys(row_of[item_id] for item_id in s.item_ids if item_id in row_of)
        if s.split != home[key]:
            dropped["sets whose title is also in a more held-out split"] += 1
        elif len(rows) < min_size:
            dropped["sets with too few items (data.min_set_size)"] += 1
        else:
            dropped["sets merged into another set of the same title"] += key in titles
            titles.setdefault(key, " ".join(s.title.split()))
            references.setdefault(key, {}).update(rows)

    queries = [
        Query(query_id=f"set-{number:05d}", text=titles[key], split=home[key], references=tuple(references[key]))
        for number, key in enumerate(titles)
    ]
    require_every_split(queries, "add sets there, or lower data.min_set_size, or raise data.max_item_share")
    return Catalog(items=kept, queries=queries, dropped=nonzero(dropped))


def nonzero(dropped: Counter[str]) -> dict[str, int]:
    return {reason: count for reason, count in dropped.items() if count}


def require_every_split(queries: Sequence[Query], fix: str) -> None:
    """Raises UserError, which ends with `fix`, when a split has no queries."""
    counts = Counter(query.split for query in queries)
    missing = [split for split in SPLITS if not counts[split]]
    if missing:
        raise UserError(f"no queries left in split {', '.join(missing)} ({len(queries)} in all): {fix}")
