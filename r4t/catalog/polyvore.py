"""Polyvore outfits in the layout of the Maryland archive (Han et al., ACM MM 2017; github.com/xthan/polyvore).

The folder holds train_no_dup.json, valid_no_dup.json and test_no_dup.json, each a list of outfits (set_id, name, items
with index, name, categoryid, price, likes, image), and category_id.txt with a line "id name" per category.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r4t.catalog.columns import require_unique
from r4t.catalog.files import read_json_text
from r4t.catalog.source import SPLITS, Item, ItemSet, Source, joined
from r4t.config import Data
from r4t.errors import UserError

CATEGORIES = "category_id.txt"


def load_polyvore(data: Data, *, with_sets: bool) -> Source:
    """One item per outfit and position, as in the paper; an outfit's name is its set's title.

    Raises UserError for a missing or damaged file, an outfit without the fields above, and a repeated outfit.
    """
    folder = data.items
    if folder is None or not folder.is_dir():
        raise UserError(f"no folder at {folder}: data.items must be the folder with train_no_dup.json and {CATEGORIES}")
    categories = _categories(folder / CATEGORIES)
    items: list[Item] = []
    sets = []
    dropped: Counter[str] = Counter()
    for split, outfit in _outfits(folder):
        parts = [_item(outfit, part, categories) for part in outfit["items"]]
        items += parts
        title = joined([outfit.get("name")])
        if title:
            sets.append(ItemSet(title=title, split=split, item_ids=tuple(item.item_id for item in parts)))
        elif with_sets:
            dropped["sets without a title"] += 1
    require_unique(folder, (item.item_id for item in items), "set_id and index")
    return Source(items=items, sets=sets if with_sets else [], dropped=dropped)


def _outfits(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for split in SPLITS:
        path = folder / f"{split}_no_dup.json"
        outfits = read_json_text(path, "data.items")
        if not isinstance(outfits, list):
            raise UserError(f"{path} must hold a list of outfits, not a {type(outfits).__name__}")
        for number, outfit in enumerate(outfits):
            problem = _problem(outfit)
            if problem:
                raise UserError(f"{path}: outfit {number} {problem}: fix or remove it")
            yield split, outfit


def _problem(outfit: Any) -> str | None:
    if not isinstance(outfit, dict) or not isinstance(outfit.get("set_id"), str | int):
        return "has no set_id"
    if not isinstance(outfit.get("name"), str | None):
        return "has a name that is not text"
    parts = outfit.get("items")
    if not isinstance(parts, list):
        return "has no list of items"
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("index"), int):
            return "has an item without an index"
        if not isinstance(part.get("name"), str | None):
            return f"has an item (index {part['index']}) whose name is not text"
    return None


def _item(outfit: dict[str, Any], part: dict[str, Any], categories: dict[str, str]) -> Item:
    name = joined([part.get("name")])
    category = str(part.get("categoryid", ""))
    return Item(
        item_id=f"{outfit['set_id']}_{part['index']}",
        text=name,
        name=name,
        extra={
            "category": categories.get(category, category) or None,
            "price": _number(part.get("price")),
            "likes": _number(part.get("likes")),
            "image": str(part.get("image") or "") or None,
        },
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _categories(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise UserError(f"no file at {path}: data.items must be the whole folder of the Polyvore archive")
    lines = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return {parts[0]: parts[1].strip() for parts in lines if len(parts) == 2}
