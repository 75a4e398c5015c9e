"""`r4t objective explain`: what each term says of one retrieved set, and which items carry it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.retrieve import answer, check_query, config_of, found_by
from r4t.config import Objective
from r4t.evaluation.measure import DIRECTION_TERMS, Yardstick, set_inputs
from r4t.objective.compose import WATCHED, score_sets


@dataclass(frozen=True, slots=True, kw_only=True)
class TermValue:
    """One term of the set."""

    name: str
    value: float
    weight: float
    """In the run's objective; 0 for a term that is only watched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemCredit:
    """One shown item, in the set's order; an item that was found twice stands twice."""

    item_id: str
    name: str
    direction: str
    credit: dict[str, float]
    """Term -> what its value owes to this item, times its weight (or 1), up to a constant of the set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    query: str
    method: str
    reward: float
    terms: list[TermValue]
    items: list[ItemCredit]


def explain(run_folder: Path, query: str, method: str, seed: int = 0) -> Explained:
    """Retrieves a set for `query` and takes the run's objective apart over it.

    Coverage needs references, so it is left out unless the query is one of the run's own. Terms of sub-queries are left
    out for methods that have none. Raises UserError for an empty query, an unknown method or a stage that has not run.
    """
    check_query(query)
    config = config_of(run_folder)
    dataset, sets = answer(run_folder, config, query, method, seed)
    referenced = bool(dataset.queries[-1].references)
    absent = set() if sets.directions is not None else set(DIRECTION_TERMS)
    absent |= set() if referenced else {"coverage"}
    objective = every_term(config.objective, absent)
    yardstick = Yardstick(
        dataset=dataset,
        query_rows=np.array([len(dataset.queries) - 1]),
        objective=objective,
        task="wscr" if referenced else "oar",
    )
    scores = score_sets(set_inputs(yardstick, sets), objective)
    weights = {name: config.objective.weights.get(name, 0.0) for name in scores.terms if name not in absent}
    terms = [TermValue(name=n, value=float(scores.terms[n][0]), weight=w) for n, w in weights.items()]
    return Explained(
        query=query,
        method=method,
        reward=sum(term.value * term.weight for term in terms),
        terms=sorted(terms, key=lambda term: -abs(term.weight)),
        items=[
            ItemCredit(
                item_id=dataset.item_ids[row],
                name=dataset.item_names[row],
                direction=found_by(sets, place),
                credit={
                    n: float(scores.credits[n][0, place]) * (weights[n] or 1.0) for n in weights if n in scores.credits
                },
            )
            for place, row in enumerate(sets.items[0, :, 0].tolist())
        ],
    )


def every_term(objective: Objective, absent: set[str]) -> Objective:
    """The objective with credit per row for all its terms and the watched ones, at a weight of 1, without `absent`."""
    names = dict.fromkeys((*objective.weights, *WATCHED))
    kept = {name: float(name not in absent and (objective.weighs(name) or name in WATCHED)) for name in names}
    return objective.model_copy(update={"weights": kept, "credit": "row"})


def as_json(explained: Explained) -> dict[str, Any]:
    """What `--json` prints."""
    return {"schema": 1} | asdict(explained)


def show(console: Console, explained: Explained) -> None:
    """Two tables: the terms, then the items. Names come from the catalogue, so they are printed as text."""
    title = f"{explained.query}  ({explained.method})  reward {explained.reward:.3f}"
    terms = Table(title=Text(title), title_justify="left")
    for name in ("term", "value", "weight", "value x weight"):
        terms.add_column(name, justify="left" if name == "term" else "right")
    for term in explained.terms:
        cells = [f"{term.value:.3f}", f"{term.weight:g}", f"{term.value * term.weight:.3f}"]
        terms.add_row(
            Text(term.name), *(cells if term.weight else [cells[0], "", ""]), style="" if term.weight else "dim"
        )
    console.print(terms)
    items = Table(title=Text("what each item adds (weighted terms; up to a constant of the set)"), title_justify="left")
    items.add_column("#", justify="right", style="dim")
    items.add_column("item")
    weighted = [term.name for term in explained.terms if term.weight]
    for name in weighted:
        items.add_column(Text(name), justify="right")
    items.add_column("found by", style="dim")
    for place, item in enumerate(explained.items, 1):
        credit = [Text(f"{item.credit[name]:+.3f}") for name in weighted]
        items.add_row(str(place), Text(item.name), *credit, Text(item.direction))
    console.print(items)
