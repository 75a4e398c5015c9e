"""Keys of the catalogue: items, queries, the encoder of the shared space."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from r4t.config.section import Section
from r4t.storage.urls import PathOrUrl

SHIPPED_FAMILIES = ("food", "fashion", "music")


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


class Table(Section):
    """One of several tables that together are the catalogue: `data.sources`."""

    items: PathOrUrl
    sets: PathOrUrl | None = None  # of these items; None: they are only in the database
    columns: Columns = Columns()
    clean_column: str | None = None


class Augment(Section):
    """Recomposed training sets (paper C.2). They join the training split only; off while `copies` is 0."""

    copies: int = Field(0, ge=0)  # recomposed sets of each training set
    pool: int = Field(50, ge=2)  # items from which one training set is recomposed, its own among them
    shortlist: int = Field(30, ge=2)  # items of the pool that one copy sees
    size: int = Field(10, ge=1)  # items of a recomposed set
    seed_share: tuple[float, float] = (0.3, 0.6)  # of a set's items, kept in a copy (at least one)

    @model_validator(mode="after")
    def _consistent(self) -> Augment:
        if not self.size <= self.shortlist <= self.pool:
            raise ValueError(
                f"a set of size {self.size} is chosen from a shortlist of {self.shortlist}, and that from a pool of"
                f" {self.pool}: make each at least as large as the one before"
            )
        low, high = self.seed_share
        if not 0 < low <= high <= 1:
            raise ValueError(f"seed_share [{low}, {high}] must rise within 0 to 1: for example [0.3, 0.6]")
        return self


class Endpoint(Section):
    """An OpenAI-compatible server. Its key comes from the environment alone, and no file or message shows it."""

    url: str | None = None  # the base, for example http://127.0.0.1:8000/v1
    model: str | None = None
    api_key_env: str = Field("OPENAI_API_KEY", pattern=r"^[A-Z_][A-Z0-9_]*$")  # the variable's name; it may be unset
    temperature: float | None = Field(1.0, ge=0)  # None: the server's
    max_tokens: int = Field(4096, ge=1)  # of an answer
    timeout: float = Field(120.0, gt=0)  # seconds for a whole answer
    retries: int = Field(2, ge=0, le=20)  # further attempts when an answer is unusable
    concurrency: int = Field(4, ge=1, le=64)  # requests at a time

    @field_validator("url")
    @classmethod
    def _plain_web_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("give an http:// or https:// address, for example http://127.0.0.1:8000/v1")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("leave credentials, query and fragment out of the address: api_key_env names the key")
        return url.rstrip("/")


class Data(Section):
    """Items, and either human-made sets (their titles are the queries) or broad queries, generated or your own."""

    kind: Literal["recipes", "table", "polyvore", "musiccaps"] = "recipes"
    items: PathOrUrl | None = None  # table: Parquet, CSV, JSONL or a folder; polyvore: the folder; musiccaps: the CSV
    sets: PathOrUrl | None = None  # table: set_id, title, item_ids, split
    sources: dict[str, Table] = Field(default_factory=dict)  # table: several catalogues as one, ids are NAME/ID
    columns: Columns = Columns()
    id_separator: str = Field(" ", min_length=1)  # between the item_ids of a text cell that is no JSON list
    item_vectors: PathOrUrl | None = None  # NumPy array [N, w]: row i is the vector of the i-th item of the file
    queries: PathOrUrl | None = None  # OAR: a table of your own queries (text[, split, query_id]), not generated ones
    clean_column: str | None = None  # keep only the sets where this boolean column is true
    families: str = "food"  # vocabulary of generated OAR queries: a name of SHIPPED_FAMILIES, or a YAML file's path
    seed: int = 0  # of the generated queries and the split; runs that differ in the top-level seed share their data
    n_queries: int = Field(3000, ge=10)  # generated OAR queries, before the 8:1:1 split
    min_item_words: int = Field(1, ge=1)  # items with fewer words are left out of the database
    min_set_size: int = Field(2, ge=1)
    max_item_share: float = Field(
        1.0, gt=0, le=1
    )  # WSCR: items in a larger share of the training sets are staples, removed
    writer: Literal["vocabulary", "endpoint"] = "vocabulary"  # of OAR queries, missing titles and recomposed sets
    endpoint: Endpoint = Endpoint()
    augment: Augment = Augment()

    @model_validator(mode="after")
    def _writer_has_an_endpoint(self) -> Data:
        if self.writer == "endpoint" and not (self.endpoint.url and self.endpoint.model):
            raise ValueError("data.writer 'endpoint' needs data.endpoint.url and data.endpoint.model")
        return self

    @model_validator(mode="after")
    def _items_have_one_source(self) -> Data:
        if self.sources:
            return self._check_sources()
        if self.kind != "recipes" and self.items is None:
            raise ValueError(f"data.kind '{self.kind}' needs data.items, {ITEMS_OF[self.kind]}")
        if self.item_vectors and self.kind == "recipes":
            raise ValueError("data.item_vectors needs items of your own: set data.kind and data.items")
        if self.item_vectors and self.columns.vector:
            raise ValueError("data.item_vectors and data.columns.vector both give the vectors: keep one of them")
        return self

    def _check_sources(self) -> Data:
        if self.kind != "table":
            raise ValueError("data.sources are tables: set data.kind to 'table'")
        if given := [
            key for key in ("items", "sets", "clean_column", "item_vectors") if getattr(self, key) is not None
        ]:
            raise ValueError(f"data.{given[0]} and data.sources both name a catalogue: move it into a source")
        if self.columns != Columns():
            raise ValueError("data.columns does not reach into data.sources: give each source its own columns")
        if odd := [name for name in self.sources if not name or "/" in name]:
            raise ValueError(f"a source's name goes before its ids, NAME/ID: {odd[0]!r} must be non-empty without '/'")
        return self


PACKAGED_ENCODERS = ("wordllama", "minilm")  # the weights ship in a Python package
PATH_ENCODERS = ("sentence_transformers", "open_clip", "precomputed")  # the files are the user's


class Encoder(Section):
    """Frozen encoder of the shared space. Vectors are reduced to `dim` columns and then normalised."""

    name: str = "wordllama"  # wordllama | minilm | sentence_transformers | open_clip | precomputed
    dim: int = Field(128, ge=8)
    reduce: Literal["truncate", "pca"] = "truncate"  # pca: principal directions of the items
    path: Path | None = None  # of the model or the table; wordllama and minilm have none
    model: str | None = None  # open_clip: architecture of the checkpoint, such as ViT-B-32
    image_column: str | None = None  # data.items: paths of the image files that are encoded in place of `text`
    distribute_above: int = Field(200_000, ge=0)  # items; a larger catalogue is encoded on the Ray cluster of the run

    @model_validator(mode="after")
    def _files(self) -> Encoder:
        if self.name in PATH_ENCODERS and self.path is None:
            raise ValueError(f"encoder '{self.name}' reads files: set encoder.path")
        if self.name in PACKAGED_ENCODERS and self.path is not None:
            raise ValueError(f"encoder '{self.name}' ships with R4T and reads no files: remove encoder.path")
        if self.name == "open_clip" and self.model is None:
            raise ValueError("encoder 'open_clip' needs encoder.model, the architecture of its weights")
        if self.image_column is not None and self.name != "open_clip":
            raise ValueError(f"encoder '{self.name}' has no image tower: remove encoder.image_column, or use open_clip")
        return self


class Fanout(Section):
    """What the policy writes and how deep each sub-query retrieves."""

    k: int = Field(10, ge=1)  # sub-queries per query
    n: int = Field(1, ge=1)  # items retrieved per sub-query
    prompt: Literal["compact", "paper"] = "compact"
    domain: str = "recipe"


class Index(Section):
    """How the nearest items are searched for while training and serving; evaluation is always exact."""

    kind: Literal["exact", "hnsw", "ivf_flat", "ivf_pq"] = "exact"
    shards: int = Field(1, ge=1)  # exact: parts of the catalogue in actors of their own, each with scorer.cpus
    m: int = Field(32, ge=2)  # hnsw: links per item
    ef: int = Field(128, ge=1)  # hnsw: items kept in sight while building and searching
    lists: int | None = Field(None, ge=1)  # ivf: cells; None: 4 x the root of the number of items
    probes: int = Field(32, ge=1)  # ivf: cells searched
    pq_bytes: int = Field(32, ge=1)  # ivf_pq: bytes per item, a divisor of encoder.dim
    rerank: int = Field(4, ge=1)  # approximate kinds: items scored exactly, per item asked for
    recall_floor: float | None = Field(None, ge=0, le=1)  # an approximate index with a lower recall@10 is refused

    @model_validator(mode="after")
    def _only_exact_shards(self) -> Index:
        if self.shards > 1 and self.kind != "exact":
            raise ValueError(f"shards splits an exact index: set kind to 'exact', or shards to 1 for '{self.kind}'")
        return self
