"""The rivals' trade-offs are chosen on validation queries, by the reward."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from r4t.catalog.dataset import Dataset
from r4t.catalog.encoders import load_encoder
from r4t.catalog.index import ExactIndex
from r4t.config import Evaluate, Objective
from r4t.evaluation.measure import Yardstick, measure
from r4t.evaluation.tuning import GRIDS, choose
from r4t.methods import QueryBatch
from r4t.methods.build import build_untrained
from r4t.types import Query

TEXTS = [f"{a} {b}" for a in ("apple", "carrot", "lemon", "walnut") for b in ("soup", "cake", "salad", "pie", "stew")]
QUERIES = ("warm dinner", "fruit dessert", "light lunch", "bakery")


@pytest.fixture(scope="module")
def yardstick() -> Yardstick:
    encoder = load_encoder("wordllama", 64)
    dataset = Dataset(
        item_ids=TEXTS,
        item_texts=TEXTS,
        item_names=TEXTS,
        item_vectors=encoder.encode(TEXTS),
        queries=[Query(query_id=text, text=text, split="valid") for text in QUERIES],
        query_vectors=encoder.encode(list(QUERIES)),
    )
    return Yardstick(dataset=dataset, query_rows=np.arange(3), objective=Objective(), task="oar")


@pytest.mark.parametrize("name", list(GRIDS))
def test_the_value_with_the_highest_mean_reward_is_chosen(yardstick: Yardstick, name: str) -> None:
    index = ExactIndex(yardstick.dataset.item_vectors)
    found = choose(name, yardstick, index, Evaluate(), 4, 1)
    queries = QueryBatch.of_rows(yardstick.dataset, yardstick.query_rows)
    rewards = {}
    for value in GRIDS[name][1]:
        method = build_untrained(name, yardstick.dataset, index, Evaluate(**{GRIDS[name][0]: value}), 4, 1)
        rewards[f"{value:g}"] = float(measure(yardstick, method.retrieve(queries, 0))["reward"].mean())
    assert found.means == pytest.approx(rewards, abs=1e-6)
    assert found.means[f"{found.value:g}"] == max(found.means.values())
    assert (found.key, found.n) == (GRIDS[name][0], 3)


def test_the_objective_decides_what_is_best(yardstick: Yardstick) -> None:
    index = ExactIndex(yardstick.dataset.item_vectors)
    relevance = replace(yardstick, objective=Objective(weights={"diversity": 0.0, "content_alignment": 1.0}))
    variety = replace(yardstick, objective=Objective(weights={"diversity": 1.0, "content_alignment": 0.0}))
    for name in ("mmr", "dpp"):
        low, high = (choose(name, y, index, Evaluate(), 4, 1).value for y in (variety, relevance))
        assert low < high


def test_an_objective_of_sub_queries_falls_back_to_one_of_items(yardstick: Yardstick) -> None:
    paper = replace(yardstick, objective=Objective(kind="paper"))
    index = ExactIndex(yardstick.dataset.item_vectors)
    found = choose("mmr", paper, index, Evaluate(), 4, 1)
    assert found.criterion == "reward of objective.kind 'content'"
    assert found.value == choose("mmr", yardstick, index, Evaluate(), 4, 1).value
