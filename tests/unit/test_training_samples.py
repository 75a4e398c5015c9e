"""The sets that a validation keeps for the run's page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from jobs.train_folm import samples_of
from r4t.evaluation.training_samples import KEPT
from r4t.fanout import format_answer, parse
from r4t.types import ScoredBatch


def test_the_first_queries_keep_their_sets_by_name_and_an_unusable_answer_none() -> None:
    answers = [format_answer(["hot", "cold"]), "broken", *[format_answer(["a", "b"])] * KEPT]
    items = np.array([[[2, 9], [0, 9]], [[-1, -1], [-1, -1]], *[[[1, 9], [1, 9]]] * KEPT])
    scored = ScoredBatch(
        fanouts=tuple(parse(answer, 2) for answer in answers),
        rewards=np.linspace(0, 1, len(answers), dtype="f4"),
        terms={},
        items=items,
        row_credit=np.zeros((len(answers), 2), "f4"),
        cosine=np.zeros(len(answers), "f4"),
    )
    queries = [SimpleNamespace(text=f"query {row}") for row in range(20)]
    dataset: Any = SimpleNamespace(queries=queries, item_names=["tea", "soup", "pie"])
    rows = list(range(10, 10 + len(answers)))
    kept = samples_of(dataset, rows, scored)
    assert len(kept) == KEPT
    assert kept[0] == {
        "query": "query 10",
        "reward": 0.0,
        "valid": True,
        "subqueries": ["hot", "cold"],
        "items": ["pie", "tea"],
    }
    assert (kept[1]["valid"], kept[1]["items"], kept[1]["subqueries"]) == (False, [], [])
