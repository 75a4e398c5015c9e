"""One number between alignment and diversity, applied to the rows after they are drawn (docs/retriever.md)."""

from __future__ import annotations

import math

import numpy as np

from r4t.errors import UserError
from r4t.types import Floats


def spread_rows(rows: Floats, queries: Floats, spread: float) -> Floats:
    """Rows [B, L, d] moved by `spread` and scaled to unit length; queries [B, d] are unit vectors.

    1 leaves directions alone. Below 1 every row moves towards its query, spread·row + (1 - spread)·query, until at 0
    all rows are the query: plain search. Above 1 rows move away from the mean of their set, mean + spread·(row - mean).
    Raises UserError for a negative or non-finite spread.
    """
    if not (math.isfinite(spread) and spread >= 0):
        raise UserError(f"spread is {spread}: give 0 (the query's own neighbours) or more; 1 is as trained")
    rows = _unit(rows)
    if spread < 1:
        return _unit(spread * rows + (1 - spread) * queries[:, None])
    if spread > 1:
        mean = rows.mean(axis=1, keepdims=True)
        return _unit(mean + spread * (rows - mean))
    return rows


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), dtype=np.float32)
