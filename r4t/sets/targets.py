"""How a fan-out becomes the L rows of a training set (paper section 2.4; Table 3: k = 10, L = 12)."""

from __future__ import annotations

import numpy as np

from r4t.errors import UserError
from r4t.types import Ints


def check_rows(rows: int, k: int) -> None:
    """Raises UserError unless L rows can hold k sub-queries and at most one filler for each."""
    if not k <= rows <= 2 * k:
        raise UserError(
            f"retriever.rows = {rows} does not fit fanout.k = {k}: a set holds every sub-query and at most one filler"
            f" for each; set retriever.rows between {k} and {2 * k}"
        )


def compose_slots(written: int, depth: int, rows: int, rng: np.random.Generator) -> Ints:
    """Which result of which sub-query stands in each row: [rows, 2] pairs (sub-query, rank), rank 0 the nearest.

    First the nearest result of every sub-query, then fillers: the next results (rank 1, then 2, ...) of sub-queries
    drawn without replacement. With `depth` 1 there is no next result and the sub-query itself is repeated, which is
    the rule where rows are the sub-queries' own vectors. More sub-queries than rows: a random choice of them.
    """
    if written < 1 or depth < 1:
        raise ValueError(f"a set needs at least one sub-query and one result each, got {written} and {depth}")
    if written >= rows:
        subqueries = np.sort(rng.permutation(written)[:rows])
        return np.stack([subqueries, np.zeros(rows, np.int64)], axis=1)
    rounds = -(-rows // written)
    fillers = [(rng.permutation(written), turn % depth) for turn in range(1, rounds)]
    chosen = np.concatenate([np.arange(written), *(order for order, _ in fillers)])[:rows]
    ranks = np.concatenate([np.zeros(written, np.int64), *(np.full(written, rank) for _, rank in fillers)])[:rows]
    return np.stack([chosen, ranks], axis=1).astype(np.int64)
