"""Terms of a user's own, by import path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from r4t.config import Objective, parse_config
from r4t.errors import UserError
from r4t.objective.compose import score_sets
from r4t.objective.inputs import SetInputs

SOURCE = '''
import numpy as np

def lowest(inputs):
    """The least similar shown item's cosine with the query."""
    return np.einsum("bkd,bd->bk", inputs.content, inputs.query).min(axis=1)

def credited(inputs):
    rows = inputs.top_cosine
    return rows.sum(axis=1), rows

def per_row(inputs):
    return inputs.top_cosine

def gap(inputs):
    return np.full(len(inputs.query), np.nan)

def words(inputs):
    return np.array(["a"] * len(inputs.query))

def broken(inputs):
    return 1 / 0

CONSTANT = 3
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_terms_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def inputs(k: int = 4) -> SetInputs:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(12, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = rng.integers(0, 12, (3, k, 1))
    return SetInputs(
        query=vectors[:3],
        directions=vectors[items[:, :, 0]],
        items=items,
        top_cosine=rng.uniform(0, 1, (3, k)).astype(np.float32),
        item_vectors=vectors,
    )


def test_a_term_of_ones_own_counts_and_gets_credit_by_leaving_rows_out(module: str) -> None:
    objective = Objective(weights={f"{module}:lowest": 2.0, "diversity": 0, "content_alignment": 0}, credit="row")
    given = inputs()
    scores = score_sets(given, objective)
    cosine = np.einsum("bkd,bd->bk", given.content, given.query)
    assert scores.reward == pytest.approx(2 * cosine.min(axis=1), abs=1e-6)
    for i in range(4):
        rest = np.delete(cosine, i, axis=1).min(axis=1)
        assert scores.row_credit[:, i] == pytest.approx(2 * (cosine.min(axis=1) - rest), abs=1e-6)


def test_a_term_may_bring_its_credit_and_a_set_of_one_works(module: str) -> None:
    objective = Objective(weights={f"{module}:credited": 1.0, "diversity": 0, "content_alignment": 0}, credit="row")
    given = inputs()
    assert score_sets(given, objective).row_credit == pytest.approx(given.top_cosine, abs=1e-6)
    alone = Objective(weights={f"{module}:lowest": 1.0}, credit="row")
    assert score_sets(inputs(k=1), alone).row_credit.shape == (3, 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("per_row", r"returned values of float32 \(3, 4\).*must.*\(3,\)"),
        ("gap", "3 values that are NaN"),
        ("words", "numbers of shape"),
        ("broken", "failed: ZeroDivisionError"),
        ("CONSTANT", "is a int, not a function"),
        ("absent", "cannot be imported"),
    ],
)
def test_what_a_term_does_wrong_is_said(module: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        score_sets(inputs(), Objective(weights={f"{module}:{name}": 1.0}))


def test_an_absent_module_names_the_fix() -> None:
    with pytest.raises(UserError, match="PYTHONPATH"):
        score_sets(inputs(), Objective(weights={"no_such_module:term": 1.0}))


def test_unknown_terms_and_bad_schedules_are_refused() -> None:
    with pytest.raises(UserError, match=r"unknown term 'diversty'.*did you mean 'diversity'"):
        parse_config({"objective": {"weights": {"diversty": 1.0}}})
    with pytest.raises(UserError, match="schedule names 'novelty', which has no weight"):
        parse_config({"objective": {"schedule": {"novelty": [[0, 1.0]]}}})
    with pytest.raises(UserError, match="must ascend"):
        parse_config({"objective": {"schedule": {"diversity": [[5, 1.0], [0, 0.0]]}}})
    with pytest.raises(UserError, match="nothing to check"):
        parse_config({"objective": {"weights": {"constraints": 1.0}}})
    with pytest.raises(UserError, match="demands nothing"):
        parse_config({"objective": {"constraints": [{"column": "price"}]}})
    with pytest.raises(ValidationError, match="above 0"):
        Objective(vendi_order=0)
