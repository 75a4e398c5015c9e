"""MusicCaps (Agostinelli et al., 2023): clips with a caption each, and the aspect phrases that musicians gave them.

Reads the published CSV: ytid, start_s, end_s, audioset_positive_labels, aspect_list, caption, author_id,
is_balanced_subset, is_audioset_eval. A clip is an item, a phrase that several clips share is a set.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from r4t.catalog.columns import ID, TEXT, check, require_filled, require_unique
from r4t.catalog.files import read_table
from r4t.catalog.source import Item, ItemSet, Source, joined, normalise, split_of
from r4t.config import Data
from r4t.errors import UserError

MIN_CLIPS, MAX_CLIPS = 4, 400  # of a phrase that is a set: rarer ones are no set, commoner ones say nothing
MAX_LIST = 10_000  # characters of an aspect list
TEXTS = {"ytid": ID, "caption": TEXT, "aspect_list": TEXT}


def load_musiccaps(data: Data, *, with_sets: bool) -> Source:
    """Clips as items and, `with_sets`, phrases as sets whose split is a hash of the phrase.

    An aspect list that cannot be read is counted, and its clip has no aspects. Raises UserError for a missing file or
    column, and for a repeated or missing ytid.
    """
    path = data.items
    if path is None:
        raise UserError("data.kind 'musiccaps' needs data.items, the path of musiccaps-public.csv")
    table = read_table(path, "data.items", texts=list(TEXTS))
    for name, kind in TEXTS.items():
        check(table, path, name, kind, key="data.kind")
    rows = table.to_pylist()
    require_filled(path, rows, ["ytid"])
    require_unique(path, (row["ytid"] for row in rows), "ytid")
    dropped: Counter[str] = Counter()
    items = []
    clips: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        aspects = parse_aspects(row["aspect_list"] or "")
        dropped["aspect lists that cannot be read"] += aspects is None
        item = _clip(row, aspects or [])
        items.append(item)
        for phrase in item.extra["aspects"]:
            clips[phrase].append(item.item_id)
    sets = _sets(clips, data.seed, dropped) if with_sets else []
    return Source(items=items, sets=sets, dropped=dropped)


def parse_aspects(text: str) -> list[str] | None:
    """`"['sad', 'piano']"` -> the phrases, lower-case, each once; None for anything but a list of texts."""
    if len(text) > MAX_LIST:
        return None
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if not isinstance(found, list) or not all(isinstance(phrase, str) for phrase in found):
        return None
    phrases = (normalise(joined([phrase])) for phrase in found)
    return list(dict.fromkeys(phrase for phrase in phrases if phrase))


def _clip(row: Mapping[str, Any], aspects: Sequence[str]) -> Item:
    caption = joined([row["caption"]])
    return Item(
        item_id=str(row["ytid"]),
        text=caption,
        name=caption,
        extra={
            "category": aspects[0] if aspects else None,
            "aspects": list(aspects),
            "start_s": row.get("start_s"),
            "is_eval": row.get("is_audioset_eval"),
        },
    )


def _sets(clips: Mapping[str, Sequence[str]], seed: int, dropped: Counter[str]) -> list[ItemSet]:
    sets = []
    for phrase, item_ids in clips.items():
        if len(item_ids) < MIN_CLIPS:
            dropped[f"aspects of fewer than {MIN_CLIPS} clips"] += 1
        elif len(item_ids) > MAX_CLIPS:
            dropped[f"aspects of more than {MAX_CLIPS} clips"] += 1
        else:
            sets.append(ItemSet(title=phrase, split=split_of(phrase, seed), item_ids=tuple(item_ids)))
    return sets
