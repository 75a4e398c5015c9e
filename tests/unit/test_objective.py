"""Reward terms against hand examples and brute force."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from r4t.config import Config, Objective, parse_config
from r4t.errors import UserError
from r4t.objective import terms
from r4t.objective.compose import inverse_frequency_weights, score_sets
from r4t.objective.vendi import (
    SHARED_FROM,
    VendiKernel,
    VendiNorm,
    normalise_vendi,
    similarity,
    vendi,
    vendi_without,
)
from tests.unit.objective_fixtures import inputs, unit

SEEDS = st.integers(0, 2**31)


def test_c06_groundedness_is_one_minus_the_mean_l2_distance() -> None:
    cosines = np.array([[0.5, 0.9, 0.2]], dtype=np.float32)
    expected = 1 - np.mean([math.sqrt(2 - 2 * c) for c in (0.5, 0.9, 0.2)])
    assert terms.groundedness_rows(cosines).mean() == pytest.approx(expected, abs=1e-6)
    for cosine, value in ((0.2, -0.265), (0.5, 0.0), (0.7, 0.225), (0.9, 0.553)):
        assert terms.groundedness_rows(np.array([[cosine]], "f4"))[0, 0] == pytest.approx(value, abs=1e-3)


@given(SEEDS)
@settings(max_examples=30)
def test_c06_groundedness_takes_the_minimum_over_the_whole_database(seed: int) -> None:
    given_inputs = inputs(np.random.default_rng(seed))
    distances = np.linalg.norm(given_inputs.directions[:, :, None] - given_inputs.item_vectors, axis=-1)
    expected = 1 - distances.min(axis=-1).mean(axis=-1)
    assert score_sets(given_inputs, Objective()).terms["groundedness"] == pytest.approx(expected, abs=1e-4)


def test_c07_vendi_of_identical_and_orthonormal_rows() -> None:
    assert vendi(np.tile(np.eye(8, dtype=np.float32)[0], (10, 1))) == pytest.approx(1.0, abs=1e-6)
    assert vendi(np.eye(10, 16, dtype=np.float32)) == pytest.approx(10.0, abs=1e-4)


@given(SEEDS, st.integers(2, 8))
@settings(max_examples=30)
def test_c07_vendi_equals_its_formula_and_judges_the_retrieved_items(seed: int, k: int) -> None:
    given_inputs = inputs(np.random.default_rng(seed), k=k)
    content = given_inputs.item_vectors[given_inputs.items[:, :, 0]].astype(np.float64)
    for b in range(len(content)):
        values = np.linalg.eigvals(content[b] @ content[b].T / k).real
        expected = math.exp(-sum(v * math.log(v) for v in values if v > 1e-9))
        got = score_sets(given_inputs, Objective()).terms["diversity"][b]
        assert got == pytest.approx(expected / k, abs=1e-4)


@given(SEEDS)
@settings(max_examples=20)
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
        together, rest, flat = vendi(sets), vendi_without(sets), vendi(sets[:, 0])
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(together, [[vendi(rows) for rows in line] for line in sets])
    np.testing.assert_array_equal(rest, [[vendi_without(rows) for rows in line] for line in sets])
    np.testing.assert_array_equal(flat, together[:, 0])


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
@settings(max_examples=30)
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


def test_coverage_is_a_share_of_the_weights_however_small_they_are() -> None:
    weights = np.array([0.0, 0.1, 0.3, 0.1], "f4")
    assert terms.coverage(np.array([[[1], [2]]]), [[1, 2, 3]], weights)[0] == pytest.approx(0.8)
    assert terms.coverage(np.array([[[1], [2]]]), [[0]], weights)[0] == 0.0, "weights of zero are nothing to find"


def test_coverage_of_an_objective_weighs_items_as_its_inputs_do() -> None:
    given_inputs = inputs(np.random.default_rng(2), n=5)
    weights = np.random.default_rng(3).uniform(0.1, 2.0, 30).astype("f4")
    scores = score_sets(replace(given_inputs, item_weights=weights), Objective(kind="coverage"))
    assert given_inputs.references is not None
    assert scores.reward == pytest.approx(terms.coverage(given_inputs.items, given_inputs.references, weights))
    assert scores.reward != pytest.approx(score_sets(given_inputs, Objective(kind="coverage")).reward)
    with pytest.raises(UserError, match=r"'coverage' needs reference sets: set task to 'wscr'"):
        score_sets(replace(given_inputs, references=None), Objective(kind="coverage"))


def test_rows_get_no_credit_where_none_is_asked_for_and_the_weighted_sum_where_it_is() -> None:
    given_inputs = inputs(np.random.default_rng(4))
    plain = score_sets(given_inputs, Objective())
    assert plain.credits == {}
    assert (plain.row_credit == 0).all()
    asked = score_sets(given_inputs, Objective(credit="row"))
    weights = Objective().weights
    assert asked.credits.keys() == weights.keys()
    summed = np.sum([weights[name] * credit for name, credit in asked.credits.items()], axis=0)
    assert asked.row_credit == pytest.approx(summed, abs=1e-6)
    assert asked.credits["content_alignment"].sum(axis=1) == pytest.approx(asked.terms["content_alignment"], abs=1e-6)
    for array in (asked.reward, asked.row_credit, plain.row_credit, *asked.terms.values(), *asked.credits.values()):
        assert array.dtype == np.float32


def test_a_set_of_one_gets_no_credit_for_its_diversity() -> None:
    scores = score_sets(inputs(np.random.default_rng(5), k=1), Objective(credit="row"))
    assert (scores.credits["diversity"] == 0).all()
    assert scores.credits["diversity"].dtype == np.float32


@pytest.mark.parametrize("norm", ["raw", "by_k", "minus1_over_kminus1"])
@pytest.mark.parametrize("kernel", ["cosine", "gaussian"])
def test_diversity_and_its_credit_follow_kernel_and_norm(norm: VendiNorm, kernel: VendiKernel) -> None:
    given_inputs = inputs(np.random.default_rng(6))
    objective = Objective(credit="row", vendi_kernel=kernel, vendi_norm=norm, weights={"diversity": 1.0})
    scores = score_sets(given_inputs, objective)
    whole, rest = vendi(given_inputs.content, 1.0, kernel), vendi_without(given_inputs.content, 1.0, kernel)
    scale = {"raw": 1, "by_k": 4, "minus1_over_kminus1": 3}[norm]
    assert scores.terms["diversity"] == pytest.approx((whole - (norm == "minus1_over_kminus1")) / scale, abs=1e-5)
    assert scores.credits["diversity"] == pytest.approx((whole[:, None] - rest) / scale, abs=1e-5)


def test_one_row_is_normalised_too() -> None:
    assert normalise_vendi(np.array([3.0], "f4"), 1, "minus1_over_kminus1")[0] == 2.0
    for norm in ("by_k", "minus1_over_kminus1"):
        assert normalise_vendi(np.array([3.0]), 4, norm).dtype == np.float32  # type: ignore[arg-type]


def test_rounding_beyond_the_range_of_a_cosine_does_no_harm() -> None:
    assert terms.groundedness_rows(np.array([[1.0000001]])).tolist() == [[1.0]]
    long = np.full((3, 4), 0.5000001, "f4")  # three rows of a length just above 1
    assert np.isfinite(vendi(long)).all()
    assert similarity(long, "gaussian").max() == 1.0


def test_terms_are_numbers_of_single_precision() -> None:
    kinds = np.array([[0, 1, 1]])
    for rows in (
        terms.groundedness_rows(np.array([[0.5, 0.7]])),
        terms.first_finds(kinds),
        terms.coverage_credit(kinds[:, :, None], [[1]], np.ones(3)),
        terms.mean_cosine_rows(np.ones((1, 1, 4))),
        terms.mean_cosine_rows(np.ones((1, 3, 4)) / 2),
        terms.first_of_kind(kinds, 2),
        terms.within_budget(np.array([[1.0, 2.0]]), 2.0),
        vendi(np.eye(3)),
    ):
        assert rows.dtype == np.float32


def test_coherence_is_the_mean_cosine_with_the_others() -> None:
    rows = np.array([[[1.0, 0.0], [0.6, 0.8]]], "f4")
    assert terms.mean_cosine_rows(rows) == pytest.approx(np.array([[0.6, 0.6]]))
    assert terms.mean_cosine_rows(rows[:, :1]).tolist() == [[1.0]]


def test_a_budget_is_kept_by_small_amounts_too() -> None:
    amounts = np.array([[0.25, 0.25], [0.1, np.nan], [0.0, 0.0]])
    assert terms.within_budget(amounts, 0.25) == pytest.approx([0.5, 1.0, 1.0])


def test_inverse_frequency_weights_are_the_logarithm_of_one_and_the_inverse() -> None:
    weights = inverse_frequency_weights(np.array([0.5, 0.25, 0.0], "f4"))
    assert weights == pytest.approx(np.log([3.0, 5.0, 5.0]))
    assert weights.dtype == np.float32
    assert inverse_frequency_weights(np.zeros(2, "f4")) == pytest.approx(np.log([2.0, 2.0])), "nothing was counted"


def test_inverse_frequency_weights_prefer_the_rare() -> None:
    weights = inverse_frequency_weights(np.array([0.5, 0.01, 0.0], "f4"))
    assert weights[0] < weights[1] == weights[2]


@given(SEEDS)
@settings(max_examples=30)
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
@settings(max_examples=50)
def test_c13_the_invalid_reward_is_below_every_valid_one(seed: int) -> None:
    given_inputs = inputs(np.random.default_rng(seed))
    for kind in ("paper", "content", "coverage"):
        objective = Objective(kind=kind)  # type: ignore[arg-type]
        assert (score_sets(given_inputs, objective).reward > objective.invalid_reward).all()
