"""An exported retriever's items as a store takes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r4t.errors import UserError
from r4t.retriever.files import read_columns, read_description, read_items
from r4t.types import Floats

ENCODER = "encoder_hash"
"""Under this name a store keeps the hash of the encoder its vectors are of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredItems:
    """All items, in the order of `items.parquet`."""

    item_ids: list[str]
    names: list[str]
    columns: dict[str, list[Any]]
    """The text and the catalogue's own columns, each [N]."""
    vectors: Floats
    """[N, d] unit rows."""
    encoder: str
    """`R4TRetriever.encoder_hash`."""


def stored_items(folder: Path) -> StoredItems:
    """The items of a folder that `r4t export` wrote. Raises UserError where it has none or is damaged."""
    encoder = str(read_description(folder).encoder["fingerprint"])
    found = read_items(folder)
    if found is None:
        raise UserError(f"{folder} was exported without items: export it again, without --no-items")
    item_ids, names, vectors = found
    return StoredItems(item_ids=item_ids, names=names, columns=read_columns(folder), vectors=vectors, encoder=encoder)
