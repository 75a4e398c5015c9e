"""Keys of the catalogue: items, queries, the encoder of the shared space."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from r4t.config.section import Section

ITEMS_OF = {
    "table": "the path of a Parquet, CSV or JSONL file or folder with item_id and text",
    "polyvore": "the folder with train_no_dup.json, valid_no_dup.json, test_no_dup.json and category_id.txt",
    "musiccaps": "the path of musiccaps-public.csv",
}


class Columns(Section):
    """Which columns of your tables hold what. None: the column of the key's own name, where there is one."""

    item_id: str = "item_id"
    text: tuple[str, ...] = Field(("text",), min_length=1)  # one name, or several whose values are joined with ", "
    name: str | None = None  # shown; without one, the text is
    vector: str | None = None  # the item's own vector, a list of numbers; None: the encoder makes it from the text
    set_id: str | None = None  # without one, the row's number
    title: str = "title"
    item_ids: str = "item_ids"
    split: str | None = None  # without one, a hash of the title decides

    @field_validator("text", mode="before")
    @classmethod
    def _one_name_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class Data(Section):
    """Items, and either human-made sets (their titles are the queries) or broad queries, generated or your own."""

    kind: Literal["recipes", "table", "polyvore", "musiccaps"] = "recipes"
    items: Path | None = None  # table: Parquet, CSV, JSONL or a folder; polyvore: the folder; musiccaps: the CSV
    sets: Path | None = None  # table: set_id, title, item_ids, split
    columns: Columns = Columns()
    id_separator: str = Field(" ", min_length=1)  # between the item_ids of a text cell that is no JSON list
    item_vectors: Path | None = None  # NumPy array [N, w]: row i is the vector of the i-th item of the file
    queries: Path | None = None  # OAR: a table of your own queries (text[, split, query_id]) instead of generated ones
    clean_column: str | None = None  # keep only the sets where this boolean column is true
    families: Literal["food", "fashion", "music"] = "food"  # vocabulary of generated OAR queries
    seed: int = 0  # of the generated queries and the split; runs that differ in the top-level seed share their data
    n_queries: int = Field(3000, ge=10)  # generated OAR queries, before the 8:1:1 split
    min_item_words: int = Field(1, ge=1)  # items with fewer words are left out of the database
    min_set_size: int = Field(2, ge=1)
    max_item_share: float = Field(
        1.0, gt=0, le=1
    )  # WSCR: items in a larger share of the training sets are staples, removed

    @model_validator(mode="after")
    def _items_have_one_source(self) -> Data:
        if self.kind != "recipes" and self.items is None:
            raise ValueError(f"data.kind '{self.kind}' needs data.items, {ITEMS_OF[self.kind]}")
        if self.item_vectors and self.kind == "recipes":
            raise ValueError("data.item_vectors needs items of your own: set data.kind and data.items")
        if self.item_vectors and self.columns.vector:
            raise ValueError("data.item_vectors and data.columns.vector both give the vectors: keep one of them")
        return self


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
