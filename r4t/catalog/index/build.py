"""From vectors and settings to an index, with its recall measured before anyone relies on it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from r4t.catalog.index.ann import AnnIndex, train
from r4t.catalog.index.contract import Index
from r4t.catalog.index.exact import CPU, ExactIndex
from r4t.config import Index as Settings
from r4t.errors import UserError
from r4t.types import Floats

DEPTH = 10  # recall is of the ten nearest
SAMPLE = 1000  # queries on which it is measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What an approximate index was measured to do when it was built."""

    recall: float
    """Share of the `depth` nearest items that it finds, mean over `queries`."""
    depth: int
    queries: int
    seconds: float
    """To build it."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def build_index(vectors: Floats, settings: Settings, queries: Floats, device: torch.device = CPU) -> Index:
    """The index of `settings.kind` over item vectors [N, d]; `queries` [m, d], none of them an item, judge it.

    Raises UserError when its recall is below `settings.recall_floor`.
    """
    return ExactIndex(vectors, device) if settings.kind == "exact" else build_ann(vectors, settings, queries)[0]


def build_ann(vectors: Floats, settings: Settings, queries: Floats) -> tuple[AnnIndex, Quality]:
    """An approximate index and its quality on at most 1,000 of `queries`, evenly chosen."""
    start = time.monotonic()
    index = train(vectors, settings)
    seconds = time.monotonic() - start
    if len(queries) == 0:
        raise UserError(f"index.kind '{settings.kind}' is judged on queries, and there are none: use 'exact'")
    sample = queries[np.unique(np.linspace(0, len(queries) - 1, SAMPLE).astype(np.int64))]
    depth = min(DEPTH, len(vectors))
    value = recall(index, ExactIndex(vectors), sample, depth)
    if settings.recall_floor is not None and value < settings.recall_floor:
        raise UserError(
            f"the {settings.kind} index finds {value:.3f} of the {depth} nearest items, below index.recall_floor ="
            f" {settings.recall_floor:g}: raise index.{'ef' if settings.kind == 'hnsw' else 'probes'} or index.rerank,"
            " or use index.kind 'exact'"
        )
    return index, Quality(recall=value, depth=depth, queries=len(sample), seconds=round(seconds, 2))


def recall(index: Index, exact: Index, queries: Floats, n: int) -> float:
    """Share of the n items nearest to each of `queries` [m, d] that `index` finds, mean over the queries."""
    _, found = index.search(queries, n)
    _, nearest = exact.search(queries, n)
    return float((found[:, :, None] == nearest[:, None, :]).any(axis=1).mean())
