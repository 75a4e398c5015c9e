"""Qdrant: items pushed into a collection, and sets retrieved from it. Needs `pip install r4t[qdrant]`.

client = QdrantClient(path="DIR")               # local mode; or a server's url
push(client, "items", stored_items(FOLDER))
retrieve(client, "items", retriever, ["light summer lunch"], k=10)
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from r4t.adapters.items import ENCODER, StoredItems
from r4t.errors import UserError
from r4t.retriever import R4TRetriever, choose

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

SPACE = uuid.UUID("6d0f7b9e-52ab-4c40-9d6c-5b1d2a7f3c11")  # point ids are made of item ids, the same ones every time
BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One item of a set."""

    item_id: str
    score: float
    """Cosine of the item with the row that found it."""
    row: int
    payload: dict[str, Any]


def push(client: QdrantClient, collection: str, items: StoredItems) -> int:
    """Puts all items into `collection`, made where it is missing; an item that is there is replaced. Returns how many.

    Raises UserError for a collection of another encoder or width.
    """
    models = _models()
    if client.collection_exists(collection):
        _check(client, collection, items.encoder, items.vectors.shape[1])
    else:
        client.create_collection(
            collection,
            vectors_config=models.VectorParams(size=items.vectors.shape[1], distance=models.Distance.COSINE),
        )
    for start in range(0, len(items.item_ids), BATCH):
        rows = range(start, min(start + BATCH, len(items.item_ids)))
        client.upsert(
            collection,
            points=[
                models.PointStruct(
                    id=str(uuid.uuid5(SPACE, items.item_ids[row])),
                    vector=items.vectors[row].tolist(),
                    payload={name: values[row] for name, values in items.columns.items()}
                    | {"item_id": items.item_ids[row], "name": items.names[row], ENCODER: items.encoder},
                )
                for row in rows
            ],
        )
    return len(items.item_ids)


def retrieve(
    client: QdrantClient,
    collection: str,
    retriever: R4TRetriever,
    queries: Sequence[str],
    k: int,
    *,
    seed: int = 0,
    spread: float = 1.0,
    query_filter: Any = None,
) -> list[list[Hit]]:
    """One set of k different items per query, every row searched by Qdrant. query_filter: a `Filter` of its models.

    Raises UserError for a collection of another encoder or width.
    """
    models = _models()
    _check(client, collection, retriever.encoder_hash, retriever.description.dim)
    sets = []
    for rows in retriever.embed(list(queries), seed=seed, spread=spread):
        asked = [
            models.QueryRequest(query=row.tolist(), limit=k, with_payload=True, filter=query_filter) for row in rows
        ]
        found = [answer.points for answer in client.query_batch_points(collection, requests=asked)]
        chosen = choose([[str(point.id) for point in points] for points in found], k)
        hits = [(found[row][rank], row) for _, row, rank in chosen]
        sets.append(
            [
                Hit(item_id=str(payload["item_id"]), score=float(point.score), row=row, payload=payload)
                for point, row in hits
                if (payload := dict(point.payload or {}))
            ]
        )
    return sets


def _check(client: QdrantClient, collection: str, encoder: str, dim: int) -> None:
    size = getattr(client.get_collection(collection).config.params.vectors, "size", None)
    if size != dim:
        raise UserError(f"collection '{collection}' holds vectors of width {size}, not {dim}: name another collection")
    first, _ = client.scroll(collection, limit=1, with_payload=[ENCODER])
    if first and (found := (first[0].payload or {}).get(ENCODER)) != encoder:
        raise UserError(
            f"collection '{collection}' holds vectors of another encoder (hash {str(found)[:12]}, not {encoder[:12]}):"
            " name another collection, or push the items of this retriever"
        )


def _models() -> Any:
    try:
        from qdrant_client import models
    except ImportError:
        raise UserError("this needs Qdrant's client: pip install qdrant-client==1.20.0") from None
    return models
