"""From what a version found to the JSON of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from r4t.objective.vendi import vendi
from r4t.serving.version import Answered
from r4t.types import Floats

DIGITS = 6
PLACES = 4  # of a map


def sets_of(answers: Sequence[Answered], texts: Sequence[str | None], with_map: bool) -> list[dict[str, Any]]:
    """`sets` of a response. Sets of one size are measured together."""
    sizes: dict[int, list[int]] = {}
    for place, answer in enumerate(answers):
        sizes.setdefault(len(answer.found.items), []).append(place)
    made: dict[int, dict[str, Any]] = {}
    for size, places in sizes.items():
        group = [answers[place] for place in places]
        measured = _measured(group) if size else [([], [], {})] * len(group)
        for place, answer, numbers in zip(places, group, measured, strict=True):
            made[place] = _set(answer, texts[place], *numbers)
            if with_map:
                made[place]["map"] = _map(answer)
    return [made[place] for place in range(len(answers))]


def _measured(group: Sequence[Answered]) -> list[tuple[list[float], list[float], dict[str, float]]]:
    """Per set the items' alignment and novelty, and the set's metrics; all sets have as many items."""
    items = np.array([answer.found.items for answer in group])
    vectors = np.stack([answer.version.catalogue.vectors[answer.found.items,] for answer in group])  # [B, m, d]
    queries = np.stack([answer.vector for answer in group])
    alignment = np.einsum("bmd,bd->bm", vectors, queries)
    diversity = vendi(vectors) / items.shape[1]
    novelty = _novelty(vectors)
    return [
        (
            _rounded(alignment[place]),
            _rounded(novelty[place]),
            {
                "alignment": round(float(alignment[place].mean()), DIGITS),
                "diversity": round(float(diversity[place]), DIGITS),
                "distinct": round(len(set(items[place].tolist())) / items.shape[1], DIGITS),
            },
        )
        for place in range(len(group))
    ]


def _novelty(vectors: Floats) -> Floats:
    """[B, m, d] -> [B, m]: 1 - the largest cosine with an earlier item; 1 for the first."""
    cosines = np.matmul(vectors, vectors.transpose(0, 2, 1))
    earlier = np.tri(vectors.shape[1], k=-1, dtype=bool)
    nearest = np.where(earlier, cosines, -np.inf).max(axis=2)
    nearest[:, 0] = 0.0
    return np.asarray(1 - nearest, dtype=np.float32)


def _set(
    answer: Answered, text: str | None, alignment: list[float], novelty: list[float], metrics: dict[str, float]
) -> dict[str, Any]:
    catalogue, found = answer.version.catalogue, answer.found
    items = [
        {
            "item_id": catalogue.item_ids[item],
            "name": catalogue.names[item],
            "score": round(score, DIGITS),
            "row": row,
            "alignment": alignment[place],
            "novelty": novelty[place],
            "fields": catalogue.fields(item),
        }
        for place, (item, row, score) in enumerate(zip(found.items, found.by, found.scores, strict=True))
    ]
    made = {"query": text, "items": items, "metrics": metrics}
    return made | {"subqueries": list(found.directions.texts)} if found.directions.texts else made


def _map(answer: Answered) -> dict[str, Any]:
    catalogue, found = answer.version.catalogue, answer.found
    plane, rows = catalogue.plane, found.directions.rows
    return {
        "query": _rounded(plane.project(answer.vector), PLACES),
        "rows": [] if rows is None else _rounded(plane.project(rows), PLACES),
        "items": _rounded(plane.project(catalogue.vectors[list(found.items)]), PLACES),
        "background": _rounded(catalogue.background, PLACES),
    }


def _rounded(values: Floats, digits: int = DIGITS) -> list[Any]:
    found: list[Any] = np.round(values.astype(np.float64), digits).tolist()
    return found
