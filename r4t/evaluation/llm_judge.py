"""A language model as judge of the shown sets, blind to the method (paper App. B.1).

Its scores are Likert x 20, the scale that the paper's tables seem to use, and stand apart from every number that an
encoder gives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from r4t.catalog.dataset import Dataset
from r4t.catalog.endpoint import Client, Question
from r4t.evaluation import rubrics
from r4t.evaluation.metrics import summarise
from r4t.evaluation.rubrics import RUBRICS, Verdict
from r4t.evaluation.shown import Shown

LIKERT_SCALE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One set under one rubric."""

    shown: Shown
    dimension: str


def cases(shown: Sequence[Shown], methods: Sequence[str], queries: int, seed: int) -> list[Case]:
    """Every rubric that applies to each set of `methods`, for at most `queries` queries, all in one random order.

    The queries are a fixed random choice, the same for every method.
    """
    every = np.unique([entry.query for entry in shown])
    rng = np.random.default_rng(seed)
    kept = set(rng.choice(every, min(queries, len(every)), replace=False).tolist())
    found = [
        Case(shown=entry, dimension=dimension)
        for entry in shown
        if entry.method in methods and entry.query in kept
        for dimension, rubric in RUBRICS.items()
        if entry.subqueries or not rubric.needs_subqueries
    ]
    return [found[i] for i in rng.permutation(len(found))]


def question(case: Case, dataset: Dataset, seed: int, with_schema: bool) -> Question:
    """The prompt of a case, its items in an order of their own that neither method nor rank decides."""
    shown, rubric = case.shown, RUBRICS[case.dimension]
    key = f"{seed}:{shown.query}:{case.dimension}:{sorted(shown.items)}"
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]))
    order = rng.permutation(len(shown.items))
    names = [dataset.item_names[shown.items[i]] for i in order]
    texts = [shown.subqueries[i] for i in order] if shown.subqueries else []
    return Question(
        system=rubrics.SYSTEM,
        user=rubric.ask(dataset.queries[shown.query].text, names, texts),
        seed=str(seed),
        schema=rubric.schema(len(names)) if with_schema else None,
    )


def judge(
    client: Client, dataset: Dataset, asked: Sequence[Case], seed: int, with_schema: bool
) -> list[Verdict | None]:
    """The verdict on each case; None where no attempt gave a usable answer. Raises UserError as `Client.ask` does."""

    def read(number: int, text: str) -> Verdict:
        return RUBRICS[asked[number].dimension].read(text, len(asked[number].shown.items))

    return client.ask([question(case, dataset, seed, with_schema) for case in asked], read)


def summary(asked: Sequence[Case], verdicts: Sequence[Verdict | None]) -> dict[str, dict[str, Any]]:
    """`{method: {dimension: mean, std, stderr, n, unanswered}}`, scores times 20; absent where nothing was answered."""
    grouped: dict[str, dict[str, list[Verdict | None]]] = {}
    for case, verdict in zip(asked, verdicts, strict=True):
        grouped.setdefault(case.shown.method, {}).setdefault(case.dimension, []).append(verdict)
    table: dict[str, dict[str, Any]] = {}
    for method, by_dimension in grouped.items():
        table[method] = {}
        for dimension in (name for name in RUBRICS if name in by_dimension):
            own = by_dimension[dimension]
            cell = summarise(np.array([LIKERT_SCALE * verdict.score for verdict in own if verdict]))
            if cell is not None:
                rounded = {name: round(value, 4) for name, value in asdict(cell).items()}
                table[method][dimension] = {**rounded, "unanswered": own.count(None)}
    return table


def rubric_hash() -> str:
    """SHA-256 of every prompt's wording: scores under different wordings do not compare."""
    texts = (rubrics.SYSTEM, rubrics.SCALE, rubrics.DIVERSITY, rubrics.ALIGNMENT, rubrics.GROUNDEDNESS)
    return hashlib.sha256("\x00".join(texts).encode()).hexdigest()
