"""Trade-offs of the classical rivals, chosen on validation queries: R4T is trained, so its rivals are tuned."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from r4t.catalog.index import Index
from r4t.config import Evaluate, Objective
from r4t.evaluation.measure import Yardstick, measure
from r4t.methods import QueryBatch
from r4t.methods.build import build_untrained

GRIDS = {
    "mmr": ("mmr_lambda", (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)),
    "dpp": ("dpp_quality", (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)),
    "prf": ("prf_weight", (0.1, 0.25, 0.5, 0.75)),
    "bm25": ("bm25_feedback", (0.0, 0.1, 0.25, 0.5, 0.75)),
}
"""Per method its key in `evaluate`, and the values that are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The value of one key with the best mean, the first of equals."""

    key: str
    value: float
    criterion: str
    means: dict[str, float]
    """Mean of the criterion under every value tried."""
    n: int
    """Validation queries."""


def choose(name: str, yardstick: Yardstick, index: Index, settings: Evaluate, k: int, n: int) -> Choice:
    """The trade-off of a method of `GRIDS` with the highest mean reward on the yardstick's queries.

    An objective that looks at sub-queries says nothing of a method that has none: the preset `content` decides then.
    """
    key, values = GRIDS[name]
    queries = QueryBatch.of_rows(yardstick.dataset, yardstick.query_rows)
    criterion = "reward"
    means = {}
    for value in values:
        tried = settings.model_copy(update={key: value})
        sets = build_untrained(name, yardstick.dataset, index, tried, k, n).retrieve(queries, 0)
        measured = measure(yardstick, sets)
        if "reward" not in measured:
            criterion = "reward of objective.kind 'content'"
            measured = measure(replace(yardstick, objective=Objective(kind="content")), sets)
        means[value] = round(float(np.mean(measured["reward"])), 6)
    return Choice(
        key=key,
        value=max(values, key=means.__getitem__),
        criterion=criterion,
        means={f"{value:g}": mean for value, mean in means.items()},
        n=len(queries),
    )
