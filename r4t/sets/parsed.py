"""How many answers of a policy can be read, and when there are too few to go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r4t.errors import UserError
from r4t.sets.answers import OK, STATUSES

EXAMPLES, SHOWN = 3, 160  # unreadable answers kept, and characters shown of each


@dataclass(frozen=True, slots=True, kw_only=True)
class ParseCount:
    """Answers by what became of them."""

    queries: int = 0
    statuses: tuple[int, ...] = (0,) * len(STATUSES)
    """Answers of each of `STATUSES`."""
    examples: tuple[str, ...] = ()
    """The beginnings of a few that could not be read."""

    @property
    def answers(self) -> int:
        return sum(self.statuses)

    def __add__(self, other: ParseCount) -> ParseCount:
        return ParseCount(
            queries=self.queries + other.queries,
            statuses=tuple(a + b for a, b in zip(self.statuses, other.statuses, strict=True)),
            examples=(*self.examples, *other.examples)[:EXAMPLES],
        )

    def check(self, minimum: float, after: int, what: str) -> None:
        """Raises UserError when a smaller share than `minimum` can be read of the answers to at least `after` queries.

        `what` names the policy.
        """
        read = self.statuses[OK]
        if self.queries < after or read >= minimum * self.answers:
            return
        reasons = {name: n for name, n in zip(STATUSES, self.statuses, strict=True) if n and name != "ok"}
        raise UserError(
            f"{read} of {self.answers} answers of {what} to {self.queries} queries could be read"
            f" ({read / self.answers:.1%}; {', '.join(f'{name} {n}' for name, n in reasons.items())}), fewer than"
            f" sets.min_parsed = {minimum:g}. For example {'; '.join(map(repr, self.examples))}. Train the policy"
            " further (warm_start.steps), raise rl.max_tokens where answers are cut, or lower sets.min_parsed"
        )


def count_parsed(queries: int, status: NDArray[np.int8], texts: Sequence[str]) -> ParseCount:
    """The count of one shard: `status` [M] places in `STATUSES`, `texts` the M answers."""
    unread = np.flatnonzero(status != OK)[:EXAMPLES]
    return ParseCount(
        queries=queries,
        statuses=tuple(np.bincount(status, minlength=len(STATUSES)).tolist()),
        examples=tuple(texts[row][:SHOWN] for row in unread),
    )
