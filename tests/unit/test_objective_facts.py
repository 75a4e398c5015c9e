"""From columns of the items to what terms read: bounds, kinds, popularity, and what is said of bad columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from r4t.config import Objective
from r4t.errors import UserError
from r4t.objective.facts import item_facts
from r4t.objective.inputs import ItemFacts

NOVELTY = {"weights": {"novelty": 1.0}}
NONE = np.zeros(4, dtype=np.float32)


def constrained(values: list[Any], **bounds: Any) -> list[float]:
    """Which items meet one constraint."""
    objective = Objective(weights={"constraints": 1.0}, constraints=({"column": "x", **bounds},))  # type: ignore[arg-type]
    satisfied = item_facts({"x": values}, objective, NONE).satisfied
    assert satisfied is not None
    assert satisfied.dtype == np.float32
    return satisfied.tolist()


def test_bounds_are_inclusive_and_a_missing_number_meets_none() -> None:
    prices = [None, 1, 2.0, 3.0]
    assert constrained(prices, at_least=2.0) == [0, 0, 1, 1]
    assert constrained(prices, at_most=2.0) == [0, 1, 1, 0]
    assert constrained(prices, at_least=2.0, at_most=2.0) == [0, 0, 1, 0]
    assert constrained(prices, total_at_most=9.0) == [0, 1, 1, 1]


def test_one_of_takes_single_values_lists_and_numbers_as_text() -> None:
    assert constrained(["a", "ab", None, "b"], one_of=("a", "b")) == [1, 0, 0, 1]
    assert constrained([["a", "c"], ["c"], [], None], one_of=("a", "b")) == [1, 0, 0, 0]
    assert constrained([1, 2, 3, None], one_of=("1", "None")) == [1, 0, 0, 0], "what is missing is not called None"
    assert constrained([1, 2, 3, None], one_of=("1", "3"), at_most=2.0) == [1, 0, 0, 0]


def test_all_constraints_must_hold_and_budgets_keep_their_amounts() -> None:
    objective = Objective(
        weights={"constraints": 1.0},
        constraints=({"column": "price", "at_most": 2, "total_at_most": 5}, {"column": "kind", "one_of": ("a",)}),  # type: ignore[arg-type]
    )
    facts = item_facts({"price": [1, None, 2, 3], "kind": ["a", "a", "b", "a"]}, objective, NONE)
    assert facts.satisfied is not None
    assert facts.satisfied.tolist() == [1, 0, 0, 0]
    ((amounts, limit),) = facts.budgets
    assert limit == 5
    assert amounts.dtype == np.float32
    assert np.array_equal(amounts, [1, np.nan, 2, 3], equal_nan=True)


def test_what_no_weight_asks_for_is_not_read() -> None:
    unread = Objective(constraints=({"column": "absent", "at_most": 2},))  # type: ignore[arg-type]
    assert item_facts({}, unread, NONE) == ItemFacts()


def test_kinds_are_numbered_in_order_and_blanks_are_none() -> None:
    facts = item_facts({"category": ["hat", " ", "boots", None, "hat", 7]}, Objective(), NONE)
    assert facts.categories == ("7", "boots", "hat")
    assert facts.kinds is not None
    assert facts.kinds.tolist() == [2, -1, 1, -1, 2, 0]
    assert facts.kinds.dtype == np.int64


def test_novelty_is_the_share_that_is_more_popular() -> None:
    objective = Objective(weights={"novelty": 1.0}, popularity_column="listens")
    novelty = item_facts({"listens": [None, 0.5, 2, 2]}, objective, NONE).novelty
    assert novelty is not None
    assert novelty.tolist() == [0.75, 0.5, 0.0, 0.0], "who has no number has no listeners"
    assert novelty.dtype == np.float32


@pytest.mark.parametrize(
    ("columns", "change", "message"),
    [
        ({"b": [1], "a": [1]}, {"weights": {"complementarity": 1.0}},
         r"objective\.category_column names column 'category'.*columns of the items: a, b\)"),
        ({}, {"weights": {"complementarity": 1.0}}, r"columns of the items: none\)"),
        ({"category": [None, " "]}, {"weights": {"complementarity": 1.0}}, "column 'category' is empty"),
        ({}, NOVELTY | {"popularity_column": "plays"}, r"objective\.popularity_column names.*'plays'"),
        ({"plays": ["many"]}, NOVELTY | {"popularity_column": "plays"}, "column 'plays' holds 'many'"),
        ({}, NOVELTY, r"'novelty' needs to know what is popular.*no training sets to count in\)"),
        ({}, {"weights": {"constraints": 1.0}, "constraints": ({"column": "cost", "at_most": 1},)},
         r"objective\.constraints names column 'cost'"),
        ({"cost": [True]}, {"weights": {"constraints": 1.0}, "constraints": ({"column": "cost", "at_most": 1},)},
         "column 'cost' holds True"),
        ({"cost": ["x"]}, {"weights": {"constraints": 1.0}, "constraints": ({"column": "cost", "at_least": 1},)},
         "column 'cost' holds 'x'"),
        ({"cost": ["x"]}, {"weights": {"constraints": 1.0}, "constraints": ({"column": "cost", "total_at_most": 1},)},
         "column 'cost' holds 'x'"),
    ],
)  # fmt: skip
def test_a_bad_column_is_named(columns: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        item_facts(columns, Objective(**change), NONE)
