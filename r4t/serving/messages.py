"""What goes over the wire: `POST /v1/retrieve` and its answer, and the one form of every error."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

KEY_VARIABLE = "R4T_SERVE_KEY"  # of the environment, for server and client
ALLOWED_CONTROLS = frozenset("\t\n\r")

Text = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
Vector = Annotated[list[float], Field(min_length=1, max_length=8192)]
Value = Annotated[str, StringConstraints(max_length=500)]
Column = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Values = Annotated[list[Value], Field(min_length=1, max_length=100)]
Filters = Annotated[dict[Column, Values], Field(max_length=16)]
ONE_OF = ("query", "queries", "vector", "vectors")


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class RetrieveRequest(_Closed):
    """Exactly one of query, queries, vector and vectors. A server may allow less than is allowed here."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [name]} for name in ONE_OF]})

    query: Text = Field(default="", description="One text.")
    queries: list[Text] = Field(default=[], min_length=1, max_length=1024, description="Several texts.")
    vector: Vector = Field(default=[], description="One vector of the retriever's encoder, of any length but 0.")
    vectors: list[Vector] = Field(default=[], min_length=1, max_length=1024, description="Several vectors.")
    k: int = Field(default=10, ge=1, le=1000, description="Items of a set.")
    method: str | None = Field(
        default=None, min_length=1, max_length=100, description="See GET /v1/methods; its default where none is given."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Another seed is another set.")
    spread: float = Field(default=1.0, ge=0, le=10, description="Less is nearer to the query, more is more diverse.")
    filters: Filters = Field(default={}, description="Column to the values of which an item has one; columns are and.")
    map: bool = Field(default=False, description="Also places in the plane of the catalogue.")

    @model_validator(mode="after")
    def _one_kind(self) -> RetrieveRequest:
        given = [name for name in ONE_OF if name in self.model_fields_set]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(ONE_OF)}" + (f", not {len(given)}" if given else ""))
        return self

    @field_validator("query", "queries")
    @classmethod
    def _readable(cls, given: str | list[str]) -> str | list[str]:
        for text in [given] if isinstance(given, str) else given:
            if not text.strip():
                raise ValueError("a query is empty: give a few words")
            if any(unicodedata.category(sign) == "Cc" and sign not in ALLOWED_CONTROLS for sign in text):
                raise ValueError("a query holds control characters: remove them")
        return given

    @property
    def texts(self) -> list[str] | None:
        """The queries as texts, or None where they are vectors."""
        return [self.query] if self.query else list(self.queries) or None

    @property
    def given_vectors(self) -> list[list[float]]:
        """The queries as vectors; empty where they are texts."""
        return [self.vector] if self.vector else list(self.vectors)


class _Answer(BaseModel):
    """Answers may gain fields, so clients take unknown ones."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Milliseconds(_Answer):
    """Where the time went. What is worked on together with other requests takes the time of all."""

    encode: float
    generate: float
    search: float
    total: float


class FoundItem(_Answer):
    item_id: str
    name: str
    score: float
    """Cosine with the row that found it; without rows, with the query."""
    row: int
    """Which row or sub-query found it; without rows, its place."""
    alignment: float
    """Cosine with the query."""
    novelty: float
    """1 - the largest cosine with an earlier item of the set."""
    fields: dict[str, Any]
    """The catalogue's own columns."""


class SetMetrics(_Answer):
    """Of the items shown. Absent for a set without items."""

    alignment: float | None = None
    """Mean cosine of items and query."""
    diversity: float | None = None
    """Vendi Score over k."""
    distinct: float | None = None
    """Share of different items."""


Point = Annotated[list[float], Field(min_length=2, max_length=2)]


class SetMap(_Answer):
    """Places on the catalogue's first two principal components."""

    query: Point
    rows: list[Point]
    items: list[Point]
    background: list[Point]


class FoundSet(_Answer):
    query: str | None
    items: list[FoundItem]
    metrics: SetMetrics
    map: SetMap | None = None
    subqueries: list[str] | None = None
    """The text of the rows, of methods that write text."""


class RetrieveResponse(_Answer):
    lineage: str
    """Names retriever, index and catalogue that answered, all of one version."""
    method: str
    k: int
    seed: int
    spread: float
    milliseconds: Milliseconds
    sets: list[FoundSet]


class MethodInfo(_Answer):
    name: str
    title: str
    description: str
    controls: list[str]
    """Which of seed and spread change its answer."""


class FacetInfo(_Answer):
    column: str
    values: list[str]


class CatalogInfo(_Answer):
    items: int
    name: str


class LimitsInfo(_Answer):
    queries: int
    k: int
    characters: int


class MethodsResponse(_Answer):
    default: str
    methods: list[MethodInfo]
    catalog: CatalogInfo
    filters: list[FacetInfo]
    examples: list[str]
    limits: LimitsInfo
    lineage: str
    dim: int
    """Width of query vectors."""


class ErrorBody(_Answer):
    code: str
    message: str
    field: str | None


class ErrorResponse(_Answer):
    error: ErrorBody
