"""The order in which training queries are drawn: a pure function of the seed, so any position can be drawn again."""

from __future__ import annotations

import numpy as np

from r4t.types import Ints


class QueryStream:
    """An endless stream over the training rows: every epoch is a fresh permutation that holds each row once."""

    def __init__(self, rows: Ints, seed: int) -> None:
        self.rows, self.seed = rows, seed
        self._epoch, self._order = -1, rows

    def row(self, position: int) -> int:
        """Dataset row of the query at `position` (0, 1, ...)."""
        epoch, offset = divmod(position, len(self.rows))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, epoch, 3]).permutation(self.rows)
        return int(self._order[offset])
