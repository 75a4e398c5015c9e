"""Reward terms against hand examples and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from r4t.config import Config, Objective, parse_config
from r4t.objective import terms
from r4t.objective.compose import inverse_frequency_weights, score_sets
from r4t.objective.vendi import SHARED_FROM, normalise_vendi, vendi, vendi_without
from tests.unit.objective_fixtures import inputs, unit

SEEDS = st.integers(0, 2**31)


def test_c06_groundedness_is_one_minus_the_mean_l2_distance() -> None:
    cosines = np.array([[0.5, 0.9, 0.2]], dtype=np.float32)
    expected = 1 - np.mean([math.sqrt(2 - 2 * c) for c in (0.5, 0.9, 0.2)])
    assert terms.groundedness_rows(cosines).mean() == pytest.approx(expected, abs=1e-6)
    for cosine, value in ((0.2, -0.265), (0.5, 0.0), (0.7, 0.225), (0.9, 0.553)):
        assert terms.groundedness_rows(np.array([[cosine]], "f4"))[0, 0] == pytest.approx(value, abs=1e-3)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_c06_groundedness_takes_the_minimum_over_the_whole_database(seed: int) -> None:
    given_inputs = inputs(np.random.default_rng(seed))
    distances = np.linalg.norm(given_inputs.directions[:, :, None] - given_inputs.item_vectors, axis=-1)
    expected = 1 - distances.min(axis=-1).mean(axis=-1)
    assert score_sets(given_inputs, Objective()).terms["groundedness"] == pytest.approx(expected, abs=1e-4)


def test_c07_vendi_of_identical_and_orthonormal_rows() -> None:
    assert vendi(np.tile(np.eye(8, dtype=np.float32)[0], (10, 1))) == pytest.approx(1.0, abs=1e-6)
    assert vendi(np.eye(10, 16, dtype=np.float32)) == pytest.approx(10.0, abs=1e-4)


@given(SEEDS, st.integers(2, 8))
@settings(max_examples=30, deadline=None)
def test_c07_vendi_equals_its_formula_and_judges_the_retrieved_items(seed: int, k: int) -> None:
    given_inputs = inputs(np.random.default_rng(seed), k=k)
    content = given_inputs.item_vectors[given_inputs.items[:, :, 0]].astype(np.float64)
    for b in range(len(content)):
        values = np.linalg.eigvals(content[b] @ content[b].T / k).real
        expected = math.exp(-sum(v * math.log(v) for v in values if v > 1e-9))
        got = score_sets(given_inputs, Objective()).terms["diversity"][b]
        assert got == pytest.approx(expected / k, abs=1e-4)


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_leave_one_out_vendi_equals_deleting_the_row(seed: int) -> None:
    x = unit(np.random.default_rng(seed), 2, 5, 6)
    expected = [[vendi(np.delete(x[b], i, axis=0)) for i in range(5)] for b in range(2)]
    assert vendi_without(x) == pytest.approx(np.array(expected), abs=1e-5)


def test_many_sets_at_once_have_the_scores_of_each_alone() -> None:
    """Above SHARED_FROM matrices the threads share them; below, they do not."""
    sets = unit(np.random.default_rng(0), SHARED_FROM, 3, 5, 8)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = vendi(sets)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(together, [[vendi(rows) for rows in line] for line in sets])


def test_c08_alignment_is_the_mean_cosine_with_the_query() -> None:
    query = np.array([[1.0, 0.0]], "f4")
    rows = np.array([[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]], "f4")
    assert terms.cosine_rows(rows, query).mean() == pytest.approx((1 + 0 + 0.6) / 3, abs=1e-6)


def test_c09_paper_weights_by_default_and_each_may_be_zero() -> None:
    assert Objective(kind="paper").weights == {"groundedness": 0.6, "diversity": 0.2, "alignment": 0.2}
    config = parse_config(
        {"objective": {"kind": "paper", "weights": {"groundedness": 1.0, "diversity": 0, "alignment": 0}}}
    )
    assert config.objective.weights["diversity"] == 0
    given_inputs = inputs(np.random.default_rng(0))
    scores = score_sets(given_inputs, config.objective)
    assert scores.reward == pytest.approx(scores.terms["groundedness"], abs=1e-6)
    scores = score_sets(given_inputs, Objective(kind="paper"))
    t = scores.terms
    assert scores.reward == pytest.approx(
        0.6 * t["groundedness"] + 0.2 * t["diversity"] + 0.2 * t["alignment"], abs=1e-5
    )


def test_c10_vendi_norm_switch() -> None:
    assert Config().objective.vendi_norm == "by_k"
    assert Config().model_dump()["objective"]["vendi_norm"] == "by_k"
    score = np.array([4.0], "f4")
    assert normalise_vendi(score, 10, "by_k")[0] == pytest.approx(0.4)
    assert normalise_vendi(score, 10, "minus1_over_kminus1")[0] == pytest.approx(3 / 9)
    assert normalise_vendi(score, 10, "raw")[0] == 4.0
    with pytest.raises(ValidationError):
        Objective.model_validate({"vendi_norm": "log"})


def test_c11_coverage_counts_the_union_once() -> None:
    items = np.array([[[1, 2], [2, 3]]])
    assert terms.coverage(items, [[2, 3, 9, 10]], np.ones(11, "f4"))[0] == pytest.approx(0.5)
    assert terms.coverage(items, [[9]], np.ones(11, "f4"))[0] == 0.0
    with pytest.raises(ValueError, match="non-empty"):
        terms.coverage(items, [[]], np.ones(11, "f4"))


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_c11_coverage_equals_set_arithmetic_and_credit_adds_up(seed: int) -> None:
    given_inputs = inputs(np.random.default_rng(seed), n=5)
    objective = Objective(kind="coverage", credit="row")
    scores = score_sets(given_inputs, objective)
    assert given_inputs.references is not None
    for b, reference in enumerate(given_inputs.references):
        found = set(reference) & set(given_inputs.items[b].ravel().tolist())
        assert scores.reward[b] == pytest.approx(len(found) / len(set(reference)), abs=1e-6)
    assert scores.row_credit.sum(axis=1) == pytest.approx(scores.reward, abs=1e-5)


def test_distinct_counts_the_first_of_each_shown_item() -> None:
    assert terms.first_finds(np.array([[3, 5, 3, 3], [1, 2, 3, 4]])).tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_coverage_takes_distinct_only_when_asked() -> None:
    given_inputs = inputs(np.random.default_rng(1), k=6, items=5)
    plain = score_sets(given_inputs, Objective(kind="coverage"))
    asked = score_sets(given_inputs, Objective(kind="coverage", weights={"distinct": 0.5}, credit="row"))
    assert asked.reward == pytest.approx(plain.reward + 0.5 * plain.terms["distinct"], abs=1e-6)
    assert asked.row_credit.sum(axis=1) == pytest.approx(asked.reward, abs=1e-5)


def test_a_repeated_find_earns_nothing() -> None:
    items = np.array([[[1, 2], [2, 3], [2, 9]]])
    credit = terms.coverage_credit(items, [[2, 3, 9, 10]], np.ones(11, "f4"))
    assert credit[0].tolist() == [0.25, 0.25, 0.25]
    assert terms.coverage_credit(np.array([[[2], [2]]]), [[2]], np.ones(11, "f4"))[0].tolist() == [1.0, 0.0]


def test_inverse_frequency_weights_prefer_the_rare() -> None:
    weights = inverse_frequency_weights(np.array([0.5, 0.01, 0.0], "f4"))
    assert weights[0] < weights[1] == weights[2]


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_row_credit_of_content_is_the_change_of_the_reward(seed: int) -> None:
    """Removing row i from the diversity term and its share from the mean term is what its credit says."""
    rng = np.random.default_rng(seed)
    given_inputs = inputs(rng)
    objective = Objective(credit="row")
    scores = score_sets(given_inputs, objective)
    content = given_inputs.item_vectors[given_inputs.items[:, :, 0]]
    weights = objective.weights
    for i in range(4):
        without = vendi(np.delete(content, i, axis=1))
        expected = weights["diversity"] * (vendi(content) - without) / 4
        expected += weights["content_alignment"] * np.einsum("bd,bd->b", content[:, i], given_inputs.query) / 4
        assert scores.row_credit[:, i] == pytest.approx(expected, abs=1e-5)


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_c13_the_invalid_reward_is_below_every_valid_one(seed: int) -> None:
    given_inputs = inputs(np.random.default_rng(seed))
    for kind in ("paper", "content", "coverage"):
        objective = Objective(kind=kind)  # type: ignore[arg-type]
        assert (score_sets(given_inputs, objective).reward > objective.invalid_reward).all()
