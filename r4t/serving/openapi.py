"""`/openapi.json`, from the messages themselves and the limits of this server."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from r4t.config import Serve
from r4t.serving.messages import ErrorResponse, MethodsResponse, RetrieveRequest, RetrieveResponse

REFUSALS = {
    400: "The body is not JSON, or did not arrive whole.",
    401: "The API key is missing or wrong.",
    408: "The request took too long to arrive.",
    413: "The request is too large.",
    415: "The body is not declared as application/json.",
    422: "The request is not one that this server answers.",
    429: "Too much waits already. Retry-After says when to ask again.",
    503: "No answer in time, or the server is about to stop.",
}


def document(settings: Serve, dim: int, keyed: bool) -> dict[str, Any]:
    """OpenAPI 3.1. dim: the width of vectors; keyed: whether there is an API key."""
    models = (RetrieveRequest, RetrieveResponse, MethodsResponse, ErrorResponse)
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    definitions = schemas["$defs"]
    _narrow(definitions["RetrieveRequest"]["properties"], settings, dim)
    secured: dict[str, Any] = {"security": [{"key": []}]} if keyed else {}
    refusals = {str(status): _content(text, "ErrorResponse") for status, text in REFUSALS.items()}
    unkeyed = {"401": refusals["401"]} if keyed else {}
    retrieve = {
        "operationId": "retrieve",
        "summary": "Sets of items for queries.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("RetrieveRequest")}}},
        "responses": {"200": _content("One set for each query, in order.", "RetrieveResponse"), **refusals},
    }
    paths = {
        "/v1/retrieve": {"post": retrieve | secured},
        "/v1/methods": {
            "get": {
                "operationId": "methods",
                "summary": "What this server can do.",
                "responses": {"200": _content("Methods, filters, limits.", "MethodsResponse"), **unkeyed},
                **secured,
            }
        },
        "/v1/run": {"get": _get("run", "The run behind this server.", "application/json") | secured},
        "/healthz": {"get": _get("healthz", "Whether the process lives.", "application/json")},
        "/readyz": {"get": _get("readyz", "Whether it answers requests.", "application/json", refusals["503"])},
        "/metrics": {"get": _get("metrics", "Counters in Prometheus's format.", "text/plain") | secured},
    }
    for path in ("/v1/run", "/metrics"):
        paths[path]["get"]["responses"] |= unkeyed
    components: dict[str, Any] = {"schemas": definitions}
    if keyed:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "R4T", "version": "1", "description": "Set-valued retrieval."},
        "paths": paths,
        "components": components,
    }


def _narrow(properties: dict[str, Any], settings: Serve, dim: int) -> None:
    """What this server allows of what the messages allow, in place."""
    text = {"maxLength": settings.max_characters}
    properties["k"]["maximum"] = settings.max_k
    properties["query"] |= text
    properties["queries"]["items"] |= text
    for name in ("queries", "vectors"):
        properties[name]["maxItems"] = settings.max_queries
    for vector in (properties["vector"], properties["vectors"]["items"]):
        vector |= {"minItems": dim, "maxItems": dim}
    for name in ("query", "queries", "vector", "vectors"):
        properties[name].pop("default", None)  # an absent one is not an empty one


def _get(name: str, summary: str, media: str, refusal: dict[str, Any] | None = None) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": summary, "content": {media: {}}}}
    return {"operationId": name, "summary": summary, "responses": responses | ({"503": refusal} if refusal else {})}


def _content(text: str, model: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": _ref(model)}}}


def _ref(model: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model}"}
