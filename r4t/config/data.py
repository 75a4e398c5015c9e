"""Keys of the catalogue: items, queries, the encoder of the shared space."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from r4t.config.section import Section


class Data(Section):
    """Items, and either human-made sets (their titles are the queries) or generated broad queries."""

    kind: Literal["recipes", "parquet"] = "recipes"
    items: Path | None = None  # Parquet: item_id, text, ...
    sets: Path | None = None  # Parquet: set_id, title, item_ids, split
    clean_column: str | None = None  # keep only the sets where this boolean column is true
    families: Literal["food", "fashion", "music"] = "food"  # vocabulary of generated OAR queries
    seed: int = 0  # of the generated queries and the split; runs that differ in the top-level seed share their data
    n_queries: int = Field(3000, ge=10)  # generated OAR queries, before the 8:1:1 split
    min_item_words: int = Field(1, ge=1)  # items with fewer words are left out of the database
    min_set_size: int = Field(2, ge=1)
    max_item_share: float = Field(
        1.0, gt=0, le=1
    )  # WSCR: items in a larger share of the training sets are staples, removed


class Encoder(Section):
    """Frozen text encoder of the shared space. Vectors are cut to `dim` and then normalised."""

    name: str = "wordllama"  # wordllama | minilm
    dim: int = Field(128, ge=8)


class Fanout(Section):
    """What the policy writes and how deep each sub-query retrieves."""

    k: int = Field(10, ge=1)  # sub-queries per query
    n: int = Field(1, ge=1)  # items retrieved per sub-query
    prompt: Literal["compact", "paper"] = "compact"
    domain: str = "recipe"
