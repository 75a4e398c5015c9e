"""Nothing of the held-out splits reaches training: not a query's text, not a set's exact items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from r4t.catalog.source import SPLITS, normalise
from r4t.errors import UserError
from r4t.types import Query


def check_leaks(queries: Sequence[Query]) -> None:
    """Raises UserError when a query of one split has the (normalised) text of another split's, when a training set
    holds exactly the items of a held-out one, or when a recomposed set stands outside the training split or comes from
    a query outside it.
    """
    homes: dict[str, set[str]] = {}
    for query in queries:
        homes.setdefault(normalise(query.text), set()).add(query.split)
    shared = [text for text, splits in homes.items() if len(splits) > 1]
    if shared:
        where = ", ".join(sorted(homes[shared[0]], key=SPLITS.index))
        raise UserError(
            f"{len(shared)} query texts stand in more than one split (first: '{shared[0]}' in {where}): rename or"
            " remove them, so that no test query is trained on"
        )
    training = {query.query_id for query in queries if query.split == "train"}
    held_out = _held_out_sets(queries)
    for query in queries:
        repeated = query.split == "train" and frozenset(query.references) in held_out
        if repeated or (query.origin and not (query.split == "train" and query.origin in training)):
            origin = f", recomposed from {query.origin}" if query.origin else ""
            raise UserError(
                f"the set '{query.text}' ({query.query_id}{origin}) repeats held-out data: report this, and until it is"
                " mended set data.augment.copies to 0 or remove the set"
            )


def without_held_out_sets(queries: Sequence[Query], dropped: Counter[str]) -> list[Query]:
    """The queries without the training sets whose items are exactly a validation or test set's, under another title."""
    held_out = _held_out_sets(queries)
    kept = [q for q in queries if q.split != "train" or frozenset(q.references) not in held_out]
    dropped["sets left out of training that hold exactly the items of a held-out set"] += len(queries) - len(kept)
    return kept


def without_leaks(made: Iterable[Query], queries: Sequence[Query], dropped: Counter[str]) -> list[Query]:
    """The recomposed sets (`made`) that repeat neither a held-out query's text nor the exact items of any set."""
    texts = {normalise(query.text) for query in queries if query.split != "train"}
    held_out = _held_out_sets(queries)
    seen = {frozenset(query.references) for query in queries}
    kept = []
    for query in made:
        items = frozenset(query.references)
        if normalise(query.text) in texts:
            dropped["recomposed sets with the text of a held-out query"] += 1
        elif items in held_out:
            dropped["recomposed sets with exactly the items of a held-out set"] += 1
        elif items in seen:
            dropped["recomposed sets with exactly the items of another training set"] += 1
        else:
            seen.add(items)
            kept.append(query)
    return kept


def _held_out_sets(queries: Iterable[Query]) -> set[frozenset[int]]:
    return {frozenset(query.references) for query in queries if query.split != "train" and query.references}
