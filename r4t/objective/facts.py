"""From columns of the items file to what the terms of categories, popularity and constraints read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from r4t.config import Objective
from r4t.config.objective import Constraint
from r4t.errors import UserError, did_you_mean
from r4t.objective.inputs import ItemFacts
from r4t.types import Bools, Floats, Ints

Columns = Mapping[str, Sequence[Any]]


def item_facts(columns: Columns, objective: Objective, frequencies: Floats) -> ItemFacts:
    """Facts of N items for the terms that `objective` weighs; categories also wherever their column is at hand.

    `frequencies` [N] stand in for a popularity column. Raises UserError for a missing column, one whose values have
    the wrong type, a slot that no item has, and novelty where nothing tells popularity.
    """
    kinds: Ints | None = None
    categories: tuple[str, ...] = ()
    if objective.weighs("complementarity") or objective.category_column in columns:
        kinds, categories = _kinds(_column(columns, objective.category_column, "objective.category_column"))
        _check_slots(objective, categories)
    checks = objective.constraints if objective.weighs("constraints") else ()
    single = [_meets(_column(columns, c.column, "objective.constraints"), c) for c in checks]
    return ItemFacts(
        kinds=kinds,
        categories=categories,
        novelty=_novelty(columns, objective, frequencies) if objective.weighs("novelty") else None,
        satisfied=np.all(single, axis=0).astype(np.float32) if single else None,
        budgets=tuple(
            (_numbers(columns[c.column], c.column), c.total_at_most) for c in checks if c.total_at_most is not None
        ),
    )


def _column(columns: Columns, name: str, key: str) -> Sequence[Any]:
    if name not in columns:
        known = ", ".join(sorted(columns)) or "none"
        raise UserError(
            f"{key} names column '{name}', which the items do not have{did_you_mean(name, columns)}"
            f" (further columns of the items: {known}): name one of them, or give the term the weight 0"
        )
    return columns[name]


def _kinds(values: Sequence[Any]) -> tuple[Ints, tuple[str, ...]]:
    names = [None if value is None or not str(value).strip() else str(value) for value in values]
    categories = tuple(sorted({name for name in names if name is not None}))
    code = {name: i for i, name in enumerate(categories)}
    return np.array([-1 if name is None else code[name] for name in names], dtype=np.int64), categories


def _check_slots(objective: Objective, categories: Sequence[str]) -> None:
    if objective.weighs("complementarity") and not categories:
        raise UserError(f"column '{objective.category_column}' is empty: complementarity needs categories")
    for slot in objective.slots:
        if slot not in categories:
            hint = did_you_mean(slot, categories)
            raise UserError(f"objective.slots names '{slot}', which is no item's {objective.category_column}{hint}")


def _meets(values: Sequence[Any], constraint: Constraint) -> Bools:
    """[N]: true where an item's value is known and inside the constraint's bounds."""
    met = np.array([value is not None for value in values], dtype=bool)
    if constraint.one_of is not None:
        allowed = set(constraint.one_of)
        met &= np.array([bool(allowed & set(map(str, v if isinstance(v, list) else [v]))) for v in values], dtype=bool)
    if constraint.at_least is not None:
        met &= _numbers(values, constraint.column) >= constraint.at_least
    if constraint.at_most is not None:
        met &= _numbers(values, constraint.column) <= constraint.at_most
    return met


def _novelty(columns: Columns, objective: Objective, frequencies: Floats) -> Floats:
    if objective.popularity_column is not None:
        column = _column(columns, objective.popularity_column, "objective.popularity_column")
        popularity = np.nan_to_num(_numbers(column, objective.popularity_column), nan=0.0)
    elif frequencies.any():
        popularity = frequencies
    else:
        raise UserError(
            "the term 'novelty' needs to know what is popular: set objective.popularity_column (open-ended queries"
            " have no training sets to count in)"
        )
    ascending = np.sort(popularity)
    more = len(popularity) - np.searchsorted(ascending, popularity, side="right")
    return np.asarray(more / len(popularity), dtype=np.float32)


def _numbers(values: Sequence[Any], column: str) -> Floats:
    """[N] float32, NaN where a value is missing."""
    wrong = next((v for v in values if v is not None and (isinstance(v, bool) or not isinstance(v, int | float))), None)
    if wrong is not None:
        raise UserError(
            f"column '{column}' holds {wrong!r}, the objective compares it as a number: use a numeric column"
        )
    return np.array([np.nan if value is None else value for value in values], dtype=np.float32)
