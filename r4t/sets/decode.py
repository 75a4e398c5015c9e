"""How L generated rows become the k results of a query (paper sheet section 4: generate 12, keep 10)."""

from __future__ import annotations

import numpy as np

from r4t.types import Ints


def keep_rows(nearest: Ints, k: int) -> Ints:
    """Rows to keep, [B, k], given every row's nearest item [B, L].

    Rows whose nearest item already stands in an earlier row are dropped, and the first k of the rest kept; where
    fewer remain, dropped rows fill up, earliest first. Rows are exchangeable, so "first" favours nobody.
    """
    if nearest.ndim != 2 or nearest.shape[1] < k:
        raise ValueError(f"nearest items have shape {nearest.shape}, keeping {k} rows needs [B, at least {k}]")
    same = nearest[:, :, None] == nearest[:, None, :]
    repeated = np.tril(same, k=-1).any(axis=2)
    return np.argsort(repeated, axis=1, kind="stable")[:, :k]
