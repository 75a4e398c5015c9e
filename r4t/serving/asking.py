"""From the body of a request to queries, or to the one error that says what is wrong with it."""

from __future__ import annotations

import numpy as np
from pydantic import ValidationError

from r4t.catalog.encoders import unit_rows
from r4t.config import Serve
from r4t.errors import UserError, did_you_mean
from r4t.serving.messages import RetrieveRequest
from r4t.serving.refused import RefusedError
from r4t.serving.version import Asked, Version
from r4t.types import Floats

SHOWN = 300  # characters of a message


def read_request(body: bytes, settings: Serve) -> RetrieveRequest:
    """Raises RefusedError for a body that is not JSON (400), not a request (422), or more than is allowed."""
    try:
        wanted = RetrieveRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise RefusedError(400, "bad_json", "the body is not JSON") from None
        field = ".".join(str(part) for part in first["loc"])[:SHOWN] or None
        message = first["msg"].removeprefix("Value error, ")[:SHOWN]
        raise RefusedError(422, "bad_request", message, field) from None
    texts = wanted.texts or []
    longest = max(map(len, texts), default=0)
    for field, value, most, what in (
        ("queries" if texts else "vectors", len(texts) or len(wanted.given_vectors), settings.max_queries, "queries"),
        ("k", wanted.k, settings.max_k, "items"),
        ("query" if wanted.query else "queries", longest, settings.max_characters, "characters of a query"),
    ):
        if value > most:
            raise RefusedError(422, "too_many", f"{value} {what} are more than the {most} allowed here", field)
    return wanted


def asked_of(wanted: RetrieveRequest, version: Version) -> list[Asked]:
    """The queries of a request. Raises RefusedError for a method, a column or vectors that `version` has not."""
    method = wanted.method or version.default
    if method not in version.methods:
        known = ", ".join(version.methods)
        near = did_you_mean(method, version.methods)
        raise RefusedError(422, "unknown_method", f"there is no such method here{near}: use one of {known}", "method")
    version.catalogue.check(wanted.filters)
    texts: list[str | None]
    vectors: list[Floats | None]
    if wanted.texts is not None:
        texts, vectors = [*wanted.texts], [None] * len(wanted.texts)
    else:
        texts, vectors = [None] * len(wanted.given_vectors), [*_vectors(wanted, version.dim)]
    return [
        Asked(
            text=text,
            vector=vector,
            method=method,
            k=wanted.k,
            seed=wanted.seed,
            spread=wanted.spread,
            filters=wanted.filters,
        )
        for text, vector in zip(texts, vectors, strict=True)
    ]


def _vectors(wanted: RetrieveRequest, dim: int) -> Floats:
    given, field = wanted.given_vectors, "vector" if wanted.vector else "vectors"
    if wanted.method == "r4t_folm":
        raise RefusedError(422, "text_needed", "r4t_folm reads text: send query or queries", "method")
    if {len(vector) for vector in given} != {dim}:
        raise RefusedError(422, "wrong_width", f"vectors must have {dim} numbers, of the retriever's encoder", field)
    with np.errstate(over="ignore"):
        try:
            return unit_rows(np.array(given, dtype=np.float32), what="the request")
        except UserError:
            raise RefusedError(422, "bad_vector", "a vector is zero, or too large for 32-bit numbers", field) from None
