"""From answers to shards, with the real scorer over a real encoder."""

from dataclasses import replace

import numpy as np
import pytest

from r4t.catalog.dataset import Dataset
from r4t.catalog.encoders import Encoder, load_encoder
from r4t.catalog.index import ExactIndex
from r4t.config import Config, parse_config
from r4t.fanout import format_answer
from r4t.scoring import SetScorer
from r4t.sets import ShardColumns
from r4t.sets.answers import STATUSES
from r4t.sets.records import Written, build_shard, scoring_config
from r4t.sets.tensors import tensor_table
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


WRITTEN = Written(
    query=np.array(QUERIES), sample=np.array(SAMPLES), text=ANSWERS, finished=[True, True, True], policy_version=5
)


def shard_of(encoder: Encoder, task: str, written: Written = WRITTEN) -> tuple[ShardColumns, Dataset]:
    data, settings = dataset(encoder, task), config(task)
    return build_shard(written, SetScorer(data, encoder, scoring_config(settings)), settings), data


def test_c28_oar_rows_are_what_the_subqueries_retrieve(encoder: Encoder):
    shard, data = shard_of(encoder, "oar")
    texts = [shard.texts[i] for i in shard.subqueries[0]]
    assert texts == ["apple soup", "carrot cake", "lemon salad"]
    _, nearest = ExactIndex(data.item_vectors).search(encoder.encode(texts), 2)
    assert shard.rows[0, :3].tolist() == nearest[:, 0].tolist()
    assert shard.rows[0, 3] in nearest[:, 1]
    assert shard.vectors is None


def test_c29_wscr_rows_are_the_subqueries_own_vectors(encoder: Encoder):
    shard, _ = shard_of(encoder, "wscr")
    assert np.array_equal(shard.rows[0, :3], shard.subqueries[0])
    assert shard.rows[0, 3] in shard.subqueries[0]
    assert shard.vectors is not None
    again = encoder.encode([shard.texts[i] for i in shard.rows[0]])
    assert np.allclose(shard.vectors[shard.rows[0]], again, atol=1e-6)


@pytest.mark.parametrize("task", ["oar", "wscr"])
def test_c30_short_fanouts_fill_their_rows(encoder: Encoder, task: str):
    shard, _ = shard_of(encoder, task)
    assert shard.valid[2]
    assert (shard.rows[2] >= 0).all()
    assert [shard.texts[i] for i in shard.subqueries[2]] == ["walnut cake", "walnut bread", "walnut cake"]


def test_c31_unparsable_answers_are_recorded_with_their_reward(encoder: Encoder):
    shard, _ = shard_of(encoder, "oar")
    assert shard.valid.tolist() == [True, False, True]
    assert (shard.rows[1] == -1).all()
    assert (shard.subqueries[1] == -1).all()
    assert shard.reward[1] == -1.0
    assert {"diversity", "content_alignment"} <= set(shard.terms)
    assert all(np.isnan(values).tolist() == [False, True, False] for values in shard.terms.values())
    assert shard.policy_version.tolist() == [5, 5, 5]
    assert shard.query_id == ("q0", "q0", "q1")


def test_c31_the_parse_status_of_every_answer_is_kept(encoder: Encoder):
    cut = replace(WRITTEN, finished=[False, False, True])
    for written, second in ((WRITTEN, "no_block"), (cut, "cut")):
        shard, _ = shard_of(encoder, "oar", written)
        assert [STATUSES[code] for code in shard.status] == ["ok", second, "ok"]


@pytest.mark.parametrize("task", ["oar", "wscr"])
def test_c31_rewards_and_terms_are_those_of_training(encoder: Encoder, task: str):
    shard, data = shard_of(encoder, task)
    scored = SetScorer(data, encoder, config(task)).score(QUERIES, ANSWERS)
    assert np.array_equal(shard.reward, scored.rewards)
    assert set(shard.terms) == set(scored.terms)
    for name, values in scored.terms.items():
        assert np.array_equal(shard.terms[name], values, equal_nan=True)


@pytest.mark.parametrize("task", ["oar", "wscr"])
def test_c31_a_shard_without_a_valid_answer_is_a_shard(encoder: Encoder, task: str):
    shard, _ = shard_of(encoder, task, replace(WRITTEN, text=["", "nothing", "<queries>"]))
    assert not shard.valid.any()
    assert shard.texts == ()
    assert (shard.reward == -1.0).all()


def test_c33_oar_sets_use_no_human_made_set(encoder: Encoder):
    """References handed in by mistake change nothing: rows come from the policy's sub-queries alone."""
    data, settings = dataset(encoder, "wscr"), config("oar")
    with_references = build_shard(WRITTEN, SetScorer(data, encoder, scoring_config(settings)), settings)
    without, _ = shard_of(encoder, "oar")
    assert np.array_equal(with_references.rows, without.rows)
    assert np.array_equal(with_references.reward, without.reward)


@pytest.mark.parametrize("task", ["oar", "wscr"])
def test_c28_c29_written_tensors_equal_the_gathered_ones(encoder: Encoder, task: str):
    shard, data = shard_of(encoder, task)
    table = tensor_table(shard, data.query_vectors, data.item_vectors)
    assert table["query_id"].to_pylist() == ["q0", "q1"]
    targets = table["target"].combine_chunks().to_numpy_ndarray()
    queries = np.stack(table["query_vector"].to_numpy())
    assert queries.tobytes() == data.query_vectors[[0, 1]].tobytes()
    for target, rows in zip(targets, shard.rows[shard.valid], strict=True):
        if task == "oar":
            assert target.tobytes() == data.item_vectors[rows].tobytes()
        else:
            again = encoder.encode([shard.texts[i] for i in rows])
            assert target.tobytes() == again.astype(np.float16).tobytes()


def test_scoring_is_deep_enough_for_fillers_and_no_deeper():
    assert scoring_config(config("oar")).fanout.n == 2
    assert scoring_config(config("wscr")).fanout.n == config("wscr").fanout.n


@pytest.mark.parametrize("task", ["oar", "wscr"])
def test_an_answer_is_stored_the_same_in_any_shard(encoder: Encoder, task: str):
    whole, _ = shard_of(encoder, task)
    last = Written(query=np.array([1]), sample=np.array([0]), text=ANSWERS[2:], finished=[True], policy_version=5)
    alone, _ = shard_of(encoder, task, last)
    assert [alone.texts[i] for i in alone.subqueries[0]] == [whole.texts[i] for i in whole.subqueries[2]]
    assert alone.reward[0] == whole.reward[2]
    if task == "oar":
        assert np.array_equal(alone.rows[0], whole.rows[2])
    else:
        assert [alone.texts[i] for i in alone.rows[0]] == [whole.texts[i] for i in whole.rows[2]]
