"""Token-balanced micro-batches: which sequences a rank runs together, so that padding and waiting stay small."""

from __future__ import annotations

import numpy as np

from r4t.types import Ints


def split_tokens(rows: Ints, lengths: Ints, *, ranks: int, cap: int) -> list[list[Ints]]:
    """Deals `rows` to `ranks` and cuts each share into micro-batches of at most `cap` padded tokens.

    `lengths` [S] are the tokens of every sequence that `rows` may name. Returns `[rank][micro-batch]` -> rows. Tokens
    of two ranks differ by no more than the longest sequence; a sequence longer than `cap` runs alone. Every rank gets
    the same number of micro-batches, for ZeRO's collectives need as many backward passes on each: empty arrays fill up.
    """
    order = rows[np.argsort(-lengths[rows], kind="stable")]
    shares: list[list[int]] = [[] for _ in range(ranks)]
    tokens = [0] * ranks
    for row in order.tolist():  # longest first to the lightest rank
        rank = tokens.index(min(tokens))
        shares[rank].append(row)
        tokens[rank] += int(lengths[row])
    cut = [_pack(share, lengths, cap) for share in shares]
    count = max(len(pieces) for pieces in cut)
    empty = np.array([], dtype=np.int64)
    return [pieces + [empty] * (count - len(pieces)) for pieces in cut]


def _pack(share: list[int], lengths: Ints, cap: int) -> list[Ints]:
    """Consecutive runs of a share sorted longest first: the first of a run sets its padded width."""
    runs: list[list[int]] = []
    for row in share:
        if runs and (len(runs[-1]) + 1) * lengths[runs[-1][0]] <= cap:
            runs[-1].append(row)
        else:
            runs.append([row])
    return [np.array(run, dtype=np.int64) for run in runs]
