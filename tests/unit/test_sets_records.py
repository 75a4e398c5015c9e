"""From answers to shards, with the real scorer over a real encoder."""

import numpy as np
import pytest

from r4t.catalog.dataset import Dataset
from r4t.catalog.encoders import Encoder, load_encoder
from r4t.catalog.index import ExactIndex
from r4t.config import Config, parse_config
from r4t.fanout import format_answer
from r4t.scoring import SetScorer
from r4t.sets import Shard
from r4t.sets.records import build_shard, scoring_config
from r4t.types import Query

NAMES = [f"{kind} {dish}" for kind in ("apple", "carrot", "lemon", "walnut") for dish in ("soup", "cake", "salad")]
ANSWERS = [
    format_answer(["apple soup", "carrot cake", "lemon salad"]),
    "no list at all",
    format_answer(["walnut cake", "walnut bread"]),  # one sub-query short
]
QUERIES, SAMPLES = [0, 0, 1], [0, 1, 0]


def config(task: str) -> Config:
    objective = {"kind": "coverage"} if task == "wscr" else {}
    return parse_config({"task": task, "fanout": {"k": 3}, "retriever": {"rows": 4}, "objective": objective})


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("wordllama", 64)


def dataset(encoder: Encoder, task: str) -> Dataset:
    references = (1, 2) if task == "wscr" else ()
    queries = [
        Query(query_id=f"q{i}", text=t, split="train", references=references) for i, t in enumerate(("fruit", "nuts"))
    ]
    return Dataset(
        item_ids=[f"i{i}" for i in range(len(NAMES))],
        item_texts=NAMES,
        item_names=NAMES,
        item_vectors=encoder.encode(NAMES),
        queries=queries,
        query_vectors=encoder.encode(["fruit", "nuts"]),
    )


def shard_of(encoder: Encoder, task: str) -> tuple[Shard, Dataset]:
    data, settings = dataset(encoder, task), config(task)
    scored = SetScorer(data, encoder, scoring_config(settings)).score(QUERIES, ANSWERS)
    return build_shard(QUERIES, SAMPLES, [5, 5, 5], scored, data, encoder, settings), data


def test_c28_oar_rows_are_what_the_subqueries_retrieve(encoder: Encoder):
    shard, data = shard_of(encoder, "oar")
    first = shard.records[0]
    texts = [shard.texts[i] for i in first.subqueries]
    assert texts == ["apple soup", "carrot cake", "lemon salad"]
    _, nearest = ExactIndex(data.item_vectors).search(encoder.encode(texts), 2)
    assert list(first.rows[:3]) == nearest[:, 0].tolist()
    assert first.rows[3] in nearest[:, 1]
    assert shard.vectors is None


def test_c29_wscr_rows_are_the_subqueries_own_vectors(encoder: Encoder):
    shard, _ = shard_of(encoder, "wscr")
    first = shard.records[0]
    assert first.rows[:3] == first.subqueries
    assert first.rows[3] in first.subqueries
    assert shard.vectors is not None
    again = encoder.encode([shard.texts[i] for i in first.rows])
    assert np.allclose(shard.vectors[list(first.rows)], again, atol=1e-6)


@pytest.mark.parametrize("task", ["oar", "wscr"])
def test_c30_short_fanouts_fill_their_rows(encoder: Encoder, task: str):
    shard, _ = shard_of(encoder, task)
    short = shard.records[2]
    assert short.valid
    assert len(short.rows) == 4
    assert len(short.subqueries) == 3


def test_c31_unparsable_answers_are_recorded_with_their_reward(encoder: Encoder):
    shard, _ = shard_of(encoder, "oar")
    assert [record.valid for record in shard.records] == [True, False, True]
    broken = shard.records[1]
    assert (broken.rows, broken.subqueries, broken.terms, broken.reward) == ((), (), {}, -1.0)
    assert {"diversity", "content_alignment"} <= set(shard.records[0].terms)
    assert all(record.policy_version == 5 for record in shard.records)


def test_c33_oar_sets_use_no_human_made_set(encoder: Encoder):
    """References handed in by mistake change nothing: rows come from the policy's sub-queries alone."""
    data, settings = dataset(encoder, "wscr"), config("oar")
    scored = SetScorer(data, encoder, scoring_config(settings)).score(QUERIES, ANSWERS)
    with_references = build_shard(QUERIES, SAMPLES, [5, 5, 5], scored, data, encoder, settings)
    without, _ = shard_of(encoder, "oar")
    assert with_references == without


def test_deeper_search_for_fillers_leaves_rewards_alone(encoder: Encoder):
    data, settings = dataset(encoder, "oar"), config("oar")
    deep, plain = (SetScorer(data, encoder, c).score(QUERIES, ANSWERS) for c in (scoring_config(settings), settings))
    assert deep.items.shape[2] == 2
    assert np.array_equal(deep.rewards, plain.rewards)
    assert scoring_config(config("wscr")) == config("wscr")


def test_fillers_depend_on_seed_query_and_sample_alone(encoder: Encoder):
    shard, data = shard_of(encoder, "oar")
    settings = config("oar")
    alone = SetScorer(data, encoder, scoring_config(settings)).score([1], ANSWERS[2:])
    assert build_shard([1], [0], [5], alone, data, encoder, settings).records[0].rows == shard.records[2].rows
