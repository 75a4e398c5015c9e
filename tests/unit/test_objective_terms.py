"""Every shipped term against a brute-force oracle in float64, and what holds for all of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.config import Objective
from r4t.config.objective import TERMS
from r4t.errors import UserError
from r4t.objective.compose import score_sets
from r4t.objective.facts import item_facts
from r4t.objective.inputs import SetInputs
from r4t.objective.registry import SHIPPED, Term, evaluate
from r4t.objective.vendi import vendi, vendi_without
from r4t.types import Floats
from tests.unit.objective_fixtures import inputs as random_inputs
from tests.unit.objective_fixtures import unit

SEEDS = st.integers(0, 2**31)
KINDS = ("boots", "dress", "hat", None)
EVERYTHING = Objective(
    weights=dict.fromkeys(TERMS, 1.0),
    credit="row",
    popularity_column="listens",
    constraints=(
        {"column": "price", "at_most": 60.0, "total_at_most": 200.0},
        {"column": "tags", "one_of": ("a", "b")},
    ),  # type: ignore[arg-type]
)


def columns(rng: np.random.Generator, items: int) -> dict[str, list[Any]]:
    return {
        "category": [KINDS[i] for i in rng.integers(0, len(KINDS), items)],
        "listens": rng.integers(0, 20, items).tolist(),
        "price": [None if price > 90 else float(price) for price in rng.uniform(1, 100, items)],
        "tags": [["a"] if pick == 0 else ["c", "b"] if pick == 1 else ["c"] for pick in rng.integers(0, 3, items)],
    }


def draw(seed: int) -> tuple[SetInputs, dict[str, list[Any]]]:
    """Three sets of five over twenty items, and the items' further columns."""
    rng = np.random.default_rng(seed)
    facts = columns(rng, 20)
    found = random_inputs(rng, k=5, items=20, wanted=4)
    return replace(found, facts=item_facts(facts, EVERYTHING, np.zeros(20, dtype=np.float32))), facts


def oracle(name: str, inputs: SetInputs, facts: dict[str, list[Any]], b: int) -> float:
    """One term of set `b`, from its definition alone."""
    shown = inputs.items[b, :, 0].tolist()
    content = inputs.item_vectors[shown].astype(np.float64)
    query, directions = inputs.query[b].astype(np.float64), inputs.directions[b].astype(np.float64)
    k = len(shown)
    match name:
        case "groundedness":
            distance = np.linalg.norm(directions[:, None] - inputs.item_vectors.astype(np.float64), axis=-1)
            return float(1 - distance.min(axis=1).mean())
        case "diversity":
            values = np.linalg.eigvals(content @ content.T / k).real
            return math.exp(-sum(v * math.log(v) for v in values if v > 1e-12)) / k
        case "alignment":
            return float(np.mean(directions @ query))
        case "content_alignment":
            return float(np.mean(content @ query))
        case "distinct":
            return len(set(shown)) / k
        case "coverage":
            assert inputs.references is not None
            wanted = set(inputs.references[b])
            return len(wanted & set(inputs.items[b].ravel().tolist())) / len(wanted)
        case "complementarity":
            present = {category for category in facts["category"] if category is not None}
            return len({facts["category"][i] for i in shown} - {None}) / min(k, len(present))
        case "coherence":
            return float(np.mean([content[i] @ content[j] for i in range(k) for j in range(k) if i != j]))
        case "novelty":
            listens = facts["listens"]
            return float(np.mean([sum(other > listens[i] for other in listens) / len(listens) for i in shown]))
        case "constraints":
            prices = [facts["price"][i] for i in shown]
            good = [
                p is not None and p <= 60 and bool({"a", "b"} & set(facts["tags"][i]))
                for p, i in zip(prices, shown, strict=True)
            ]
            total = sum(p for p in prices if p is not None)
            return float(np.mean(good)) * (min(1.0, 200.0 / total) if total else 1.0)
    raise AssertionError(f"no oracle for {name}")


def test_every_shipped_term_has_a_function_and_a_name() -> None:
    assert tuple(sorted(SHIPPED)) == tuple(sorted(TERMS))


@pytest.mark.parametrize("name", TERMS)
@given(seed=SEEDS)
@settings(max_examples=25)
def test_a_term_equals_its_oracle(name: str, seed: int) -> None:
    inputs, facts = draw(seed)
    term = evaluate(name, inputs, EVERYTHING, False)
    assert term.value == pytest.approx([oracle(name, inputs, facts, b) for b in range(3)], abs=2e-4)


@pytest.mark.parametrize("name", TERMS)
@given(seed=SEEDS)
@settings(max_examples=15)
def test_a_term_does_not_depend_on_the_order_of_the_set(name: str, seed: int) -> None:
    inputs, _ = draw(seed)
    order = np.random.default_rng(seed).permutation(5)
    mixed = replace(
        inputs,
        directions=inputs.directions[:, order],
        items=inputs.items[:, order],
        top_cosine=inputs.top_cosine[:, order],
    )
    assert evaluate(name, mixed, EVERYTHING, False).value == pytest.approx(
        evaluate(name, inputs, EVERYTHING, False).value, abs=1e-5
    )


def credited(name: str, seed: int) -> tuple[SetInputs, Term, Floats]:
    """Sets, a term of them, and its credit [B, k]."""
    inputs, _ = draw(seed)
    term = evaluate(name, inputs, EVERYTHING, True)
    assert term.credit is not None
    return inputs, term, term.credit / np.float32(term.shares)


ADDED_IN_ORDER = ("distinct", "coverage", "complementarity")  # rows earn what none before them has


@pytest.mark.parametrize("name", [name for name in TERMS if name not in ADDED_IN_ORDER])
@given(seed=SEEDS)
@settings(max_examples=15)
def test_credit_orders_the_rows_as_leaving_them_out_does(name: str, seed: int) -> None:
    """Up to a constant of the set and one common scale, credit is the value minus the value without the row."""
    inputs, term, given_credit = credited(name, seed)
    value = [evaluate(name, inputs.without(i), EVERYTHING, False).value for i in range(5)]
    if name == "diversity":  # its score counts rows, so a set of four is not divided by five
        value = [v * 4 / 5 for v in value]
    left_out = term.value[:, None] - np.stack(value, axis=1)
    centred = given_credit - given_credit.mean(axis=1, keepdims=True)
    expected = left_out - left_out.mean(axis=1, keepdims=True)
    scale = 4 / 5 if term.shares == 5 else 1.0  # the mean over five rows against the mean over four others
    assert centred == pytest.approx(expected * scale, abs=2e-5)


@pytest.mark.parametrize("name", ADDED_IN_ORDER)
@given(seed=SEEDS)
@settings(max_examples=15)
def test_credit_of_finds_adds_up_to_the_value(name: str, seed: int) -> None:
    _, term, given_credit = credited(name, seed)
    assert given_credit.sum(axis=1) == pytest.approx(term.value, abs=1e-5)


@given(SEEDS, st.floats(0.3, 4.0).filter(lambda q: abs(q - 1) > 0.05))
@settings(max_examples=30)
def test_vendi_of_any_order_and_kernel(seed: int, order: float) -> None:
    x = unit(np.random.default_rng(seed), 2, 6, 8)
    assert vendi(np.eye(6, 8, dtype=np.float32), order) == pytest.approx(6.0, abs=1e-3)
    assert vendi(np.tile(x[0, :1], (6, 1)), order) == pytest.approx(1.0, abs=1e-3)
    for kernel in ("cosine", "gaussian"):
        for b in range(2):
            wide = x[b].astype(np.float64)
            similar = wide @ wide.T
            if kernel == "gaussian":
                similar = np.exp(-(np.linalg.norm(wide[:, None] - wide, axis=-1) ** 2))
            values = np.clip(np.linalg.eigvalsh(similar / 6), 0, None)
            expected = (values[values > 1e-12] ** order).sum() ** (1 / (1 - order))
            assert vendi(x[b], order, kernel) == pytest.approx(expected, rel=2e-3)  # type: ignore[arg-type]
            assert vendi(x, math.inf, kernel)[b] == pytest.approx(1 / values.max(), rel=1e-4)  # type: ignore[arg-type]
    near_one = vendi(x, 1 + 1e-4)
    assert near_one == pytest.approx(vendi(x), rel=1e-2)


def test_leaving_one_out_needs_two_rows() -> None:
    with pytest.raises(ValueError, match="two rows"):
        vendi_without(np.eye(1, 4, dtype=np.float32)[None])


@pytest.mark.parametrize("seed", range(8))
def test_slots_count_only_what_was_asked_for(seed: int) -> None:
    inputs, facts = draw(seed)
    objective = Objective(weights={"complementarity": 1.0}, slots=("boots", "hat"))
    inputs = replace(inputs, facts=item_facts(facts, objective, np.zeros(20, "f4")))
    for b, value in enumerate(evaluate("complementarity", inputs, objective, False).value):
        present = {facts["category"][i] for i in inputs.items[b, :, 0]}
        assert value == pytest.approx(len(present & {"boots", "hat"}) / 2)


def test_without_a_budget_constraints_are_the_share_of_items_that_meet_them() -> None:
    inputs, facts = draw(6)
    objective = Objective(weights={"constraints": 1.0}, constraints=({"column": "listens", "at_least": 10},))  # type: ignore[arg-type]
    found = replace(inputs, facts=item_facts(facts, objective, np.zeros(20, "f4")))
    expected = [np.mean([facts["listens"][i] >= 10 for i in shown]) for shown in inputs.shown]
    term = evaluate("constraints", found, objective, True)
    assert term.value == pytest.approx(expected)
    assert term.credit is not None
    assert term.credit.mean(axis=1) == pytest.approx(expected)


def test_a_budget_that_holds_costs_nothing() -> None:
    inputs, facts = draw(5)
    objective = Objective(weights={"constraints": 1.0}, constraints=({"column": "price", "total_at_most": 1e9},))  # type: ignore[arg-type]
    priced = item_facts(facts | {"price": [1.0] * 20}, objective, np.zeros(20, "f4"))
    assert evaluate("constraints", replace(inputs, facts=priced), objective, False).value.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"complementarity": 1.0}, "category_column": "categry"}, "categry.*did you mean 'category'"),
        ({"weights": {"complementarity": 1.0}, "slots": ("boot",)}, "slots names 'boot'.*did you mean 'boots'"),
        ({"weights": {"novelty": 1.0}}, "popularity_column"),
        ({"weights": {"novelty": 1.0}, "popularity_column": "tags"}, "numeric column"),
        ({"weights": {"constraints": 1.0}, "constraints": ({"column": "cost", "at_most": 1},)}, "column 'cost'"),
    ],
)
def test_facts_that_the_items_lack_are_named(change: dict[str, Any], message: str) -> None:
    _, facts = draw(0)
    with pytest.raises(UserError, match=message):
        item_facts(facts, Objective(**change), np.zeros(20, "f4"))


def test_novelty_counts_in_training_sets_when_no_column_is_named() -> None:
    found = item_facts({}, Objective(weights={"novelty": 1.0}), np.array([0.5, 0.0, 0.1, 0.5], "f4")).novelty
    assert found is not None
    assert found.tolist() == [0.0, 0.75, 0.5, 0.0]


def test_categories_at_hand_are_reported_without_a_weight() -> None:
    inputs, _ = draw(1)
    scores = score_sets(inputs, Objective())
    assert "complementarity" in scores.terms
    assert scores.reward == pytest.approx(
        0.3 * scores.terms["diversity"] + 0.7 * scores.terms["content_alignment"], abs=1e-6
    )
