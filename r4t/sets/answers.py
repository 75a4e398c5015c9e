"""Answers of a whole shard as arrays: every distinct sub-query once, and its place in every answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r4t.fanout import ANSWERS, read_list
from r4t.types import Bools, Ints

STATUSES = (*ANSWERS, "cut")
"""What the `status` of a stored answer can be; `cut`: the token limit ended it before its block was closed."""
OK, NO_BLOCK, CUT = STATUSES.index("ok"), STATUSES.index("no_block"), STATUSES.index("cut")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """B parsed answers."""

    texts: tuple[str, ...]
    """Distinct sub-queries, in the order in which they are first written."""
    places: Ints
    """[B, k] places in `texts`; -1 where invalid."""
    status: NDArray[np.int8]
    """[B] places in `STATUSES`."""

    @property
    def valid(self) -> Bools:
        return self.status == OK


def read_answers(answers: Sequence[str], finished: Sequence[bool], k: int) -> Answers:
    """Parses B answers; `finished` is False where the token limit cut one. The k sub-queries are those of `parse`."""
    place: dict[str, int] = {}
    code = {name: number for number, name in enumerate(STATUSES)}
    flat: list[int] = []
    status = np.empty(len(answers), dtype=np.int8)
    for row, answer in enumerate(answers):
        name, subqueries = read_list(answer, k)
        status[row] = code[name]
        flat += [place.setdefault(text, len(place)) for text in subqueries]
    valid = status == OK
    status[(status == NO_BLOCK) & ~np.asarray(finished, dtype=bool)] = CUT
    places = np.full((len(answers), k), -1, dtype=np.int64)
    places[valid] = np.array(flat, dtype=np.int64).reshape(-1, k)
    return Answers(texts=tuple(place), places=places, status=status)
