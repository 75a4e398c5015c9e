"""Which sub-query each token of an answer writes, so that credit per row can reach its tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from r4t.types import Fanout, Ints


def piece_ends(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], text: str) -> Ints:
    """[T]: length of the decoded text after each token. A token that only completes a character adds nothing."""
    pieces = tokenizer.batch_decode([[t] for t in token_ids], skip_special_tokens=True)
    if "".join(pieces) == text:
        return np.cumsum([len(piece) for piece in pieces])
    prefixes = [list(token_ids[: i + 1]) for i in range(len(token_ids))]
    lengths = [len(prefix) for prefix in tokenizer.batch_decode(prefixes, skip_special_tokens=True)]
    return np.minimum(np.maximum.accumulate(np.asarray(lengths, dtype=np.int64)), len(text))


def token_rows(ends: Ints, fanout: Fanout) -> Ints:
    """[T]: index of the sub-query a token overlaps, -1 for separators, markers and everything outside.

    `ends` are cumulative text lengths. The quotes belong to their string only through tokens that also hold its text;
    a token that completes a character belongs where the character began.
    """
    starts = np.concatenate([[0], ends[:-1]])
    rows = np.full(len(ends), -1, dtype=np.int64)
    for row, (begin, stop) in enumerate(fanout.spans):
        rows[(starts < stop - 1) & (ends > begin + 1) & (ends > starts)] = row
    for t in np.flatnonzero(ends == starts):
        rows[t] = rows[t - 1] if t else -1
    return rows
