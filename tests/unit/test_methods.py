"""Retrieval methods on a small catalogue, with the real encoder, index, parser and scorer."""

from __future__ import annotations

import numpy as np
import pytest
from diffusion_fixtures import random_denoiser

from r4t.catalog.dataset import Dataset
from r4t.catalog.encoders import Encoder, load_encoder
from r4t.catalog.index import ExactIndex
from r4t.config import Config, Sampler, parse_config
from r4t.diffusion.sampler import SetSampler
from r4t.fanout import format_answer
from r4t.methods import (
    MMR,
    BestOfN,
    Diffusion,
    FanoutSearch,
    LanguageFanout,
    NoFanout,
    Popular,
    QueryBatch,
    Random,
    popularity,
)
from r4t.mmr import mmr_select
from r4t.scoring import SetScorer
from r4t.types import Floats, Query, RetrievedSets

K = 4
BASES = ("soup", "cake", "salad", "bread", "pie", "stew")
KINDS = ("apple", "carrot", "lemon", "tomato", "walnut", "ginger", "cheese", "bean")
QUERIES = ("warm winter dinner", "light lunch", "birthday treat", "bakery morning", "fruit dessert", "garden meal")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("wordllama", 64)


@pytest.fixture(scope="module")
def dataset(encoder: Encoder) -> Dataset:
    names = [f"{kind} {base}" for base in BASES for kind in KINDS]
    queries = [Query(query_id=str(i), text=text, split="train" if i < 4 else "test") for i, text in enumerate(QUERIES)]
    return Dataset(
        item_ids=[f"i{row}" for row in range(len(names))],
        item_texts=names,
        item_names=names,
        item_vectors=encoder.encode(names),
        queries=queries,
        query_vectors=encoder.encode(list(QUERIES)),
    )


@pytest.fixture(scope="module")
def index(dataset: Dataset) -> ExactIndex:
    return ExactIndex(dataset.item_vectors)


@pytest.fixture
def queries(dataset: Dataset) -> QueryBatch:
    return QueryBatch.of_rows(dataset, [4, 5, 0])


def config(**objective: object) -> Config:
    return parse_config({"fanout": {"k": K, "n": 1}, "objective": objective, "encoder": {"dim": 64}})


def wordy(queries: QueryBatch, samples: int, temperature: float, seed: int) -> list[list[str]]:
    """A stand-in policy: sub-queries drawn from the vocabulary, a function of query, sample and seed alone."""
    assert temperature >= 0
    answers = []
    for row in queries.rows:
        rng = np.random.default_rng((seed, int(row)))
        drawn = [[f"{rng.choice(KINDS)} {rng.choice(BASES)}" for _ in range(K)] for _ in range(samples)]
        answers.append([format_answer(texts) for texts in drawn])
    return answers


def assert_same(a: RetrievedSets, b: RetrievedSets) -> None:
    np.testing.assert_array_equal(a.items, b.items)
    assert a.subqueries == b.subqueries


def test_c05_no_fanout_shows_the_k_nearest_and_pools_the_k_times_n_nearest(
    dataset: Dataset, index: ExactIndex, queries: QueryBatch
) -> None:
    sets = NoFanout(index, k=K, n=3).retrieve(queries, seed=0)
    for b in range(len(queries)):
        order = np.argsort(-(dataset.item_vectors @ queries.vectors[b]), kind="stable")
        assert set(sets.items[b, :, 0]) == set(order[:K])
        assert set(sets.items[b].reshape(-1)) == set(order[: 3 * K])


def test_random_draws_different_items_and_repeats_with_its_seed(queries: QueryBatch) -> None:
    method = Random(n_items=48, k=K, n=5)
    first = method.retrieve(queries, seed=1)
    assert first.items.shape == (3, K, 5)
    assert all(len(set(row.reshape(-1).tolist())) == 20 for row in first.items)
    assert_same(first, method.retrieve(queries, seed=1))
    assert not np.array_equal(first.items, method.retrieve(queries, seed=2).items)


def test_random_answer_of_a_query_does_not_depend_on_its_batch(dataset: Dataset, queries: QueryBatch) -> None:
    alone = Random(n_items=48, k=K, n=2).retrieve(QueryBatch.of_rows(dataset, [5]), seed=3)
    together = Random(n_items=48, k=K, n=2).retrieve(queries, seed=3)
    np.testing.assert_array_equal(alone.items[0], together.items[1])


def test_a_depth_beyond_the_database_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lower fanout\.n"):
        Random(n_items=10, k=4, n=3)


def test_popular_in_oar_counts_what_training_queries_retrieve(dataset: Dataset, index: ExactIndex) -> None:
    counted = popularity(dataset, index, K)
    expected = np.zeros(len(dataset.item_ids))
    for row in range(4):
        expected[np.argsort(-(dataset.item_vectors @ dataset.query_vectors[row]), kind="stable")[:K]] += 0.25
    np.testing.assert_allclose(counted, expected)


def test_popular_in_wscr_counts_training_references_only(dataset: Dataset, index: ExactIndex) -> None:
    referring = [
        Query(query_id=q.query_id, text=q.text, split=q.split, references=(7, i) if q.split == "train" else (30, 31))
        for i, q in enumerate(dataset.queries)
    ]
    wscr = Dataset(
        item_ids=dataset.item_ids,
        item_texts=dataset.item_texts,
        item_names=dataset.item_names,
        item_vectors=dataset.item_vectors,
        queries=referring,
        query_vectors=dataset.query_vectors,
    )
    method = Popular(popularity(wscr, index, K), k=K, n=1)
    sets = method.retrieve(QueryBatch.of_rows(wscr, [4, 5]), seed=0)
    assert sets.items[0, 0, 0] == 7
    assert set(sets.items[0, :, 0]) == {7, 0, 1, 2}
    np.testing.assert_array_equal(sets.items[0], sets.items[1])


def test_mmr_equals_its_definition_item_by_item() -> None:
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(3, 12, 8)).astype(np.float32)
    candidates /= np.linalg.norm(candidates, axis=-1, keepdims=True)
    relevance = rng.random((3, 12)).astype(np.float32)
    chosen = mmr_select(relevance, candidates, 5, 0.6)
    for b in range(3):
        taken: list[int] = []
        for _ in range(5):
            left = [i for i in range(12) if i not in taken]
            similar = {i: max((float(candidates[b, i] @ candidates[b, j]) for j in taken), default=0.0) for i in left}
            taken.append(max(left, key=lambda i: 0.6 * relevance[b, i] - 0.4 * similar[i]))
        assert chosen[b].tolist() == taken


def test_mmr_without_redundancy_penalty_is_no_fanout(dataset: Dataset, index: ExactIndex, queries: QueryBatch) -> None:
    mmr = MMR(index, dataset.item_vectors, k=K, n=1, trade_off=1.0).retrieve(queries, seed=0)
    assert_same(mmr, NoFanout(index, k=K, n=1).retrieve(queries, seed=0))


def test_mmr_items_are_directions_when_lists_are_deeper(
    dataset: Dataset, index: ExactIndex, queries: QueryBatch
) -> None:
    flat = MMR(index, dataset.item_vectors, k=K, n=1, trade_off=0.5).retrieve(queries, seed=0)
    deep = MMR(index, dataset.item_vectors, k=K, n=3, trade_off=0.5).retrieve(queries, seed=0)
    np.testing.assert_array_equal(deep.items[:, :, 0], flat.items[:, :, 0])
    assert deep.items.shape == (3, K, 3)


def test_zero_shot_searches_each_subquery(
    dataset: Dataset, encoder: Encoder, index: ExactIndex, queries: QueryBatch
) -> None:
    sets = LanguageFanout("zero_shot", wordy, FanoutSearch(encoder, index, K, 2), 1.0).retrieve(queries, seed=5)
    assert sets.subqueries is not None
    assert sets.directions is not None
    for b in range(len(queries)):
        for i, text in enumerate(sets.subqueries[b]):
            assert dataset.item_names[sets.items[b, i, 0]] == text
            np.testing.assert_allclose(sets.directions[b, i], encoder.encode([text])[0], atol=1e-6)


def test_an_invalid_answer_falls_back_to_the_plain_query_and_is_marked(
    encoder: Encoder, index: ExactIndex, queries: QueryBatch
) -> None:
    def sometimes(batch: QueryBatch, samples: int, temperature: float, seed: int) -> list[list[str]]:
        answers = wordy(batch, samples, temperature, seed)
        return [["no list at all"], *answers[1:]]

    sets = LanguageFanout("r4t_folm", sometimes, FanoutSearch(encoder, index, K, 1), 1.0).retrieve(queries, seed=0)
    assert sets.valid is not None
    assert sets.directions is not None
    assert sets.valid.tolist() == [False, True, True]
    np.testing.assert_array_equal(sets.items[0], NoFanout(index, K, 1).retrieve(queries, 0).items[0])
    assert np.isnan(sets.directions[0]).all()
    assert np.isfinite(sets.directions[1:]).all()


def test_best_of_five_takes_the_answer_with_the_highest_training_reward(
    dataset: Dataset, encoder: Encoder, index: ExactIndex, queries: QueryBatch
) -> None:
    scorer = SetScorer(dataset, encoder, config())
    method = BestOfN(wordy, FanoutSearch(encoder, index, K, 1), scorer, temperature=1.0, samples=5)
    best = method.retrieve(queries, seed=2)
    answers = wordy(queries, 5, 1.0, 2)
    for b, row in enumerate(queries.rows):
        rewards = scorer.score([int(row)] * 5, answers[b]).rewards
        assert best.subqueries is not None
        assert format_answer(best.subqueries[b]) == answers[b][int(np.argmax(rewards))]


def test_best_of_n_never_prefers_an_invalid_answer(
    dataset: Dataset, encoder: Encoder, index: ExactIndex, queries: QueryBatch
) -> None:
    def mostly_broken(batch: QueryBatch, samples: int, temperature: float, seed: int) -> list[list[str]]:
        return [["broken", answer[1], "<queries>[]</queries>"] for answer in wordy(batch, samples, temperature, seed)]

    scorer = SetScorer(dataset, encoder, config())
    sets = BestOfN(mostly_broken, FanoutSearch(encoder, index, K, 1), scorer, 1.0, 3).retrieve(queries, 0)
    assert sets.valid is not None
    assert sets.valid.all()


def test_a_compiled_retrievers_rows_move_between_what_is_drawn_and_plain_search() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(30, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = QueryBatch(rows=np.arange(5), texts=("q",) * 5, vectors=vectors[:5])
    sampler = SetSampler(random_denoiser(), Sampler(name="dpmpp_2m", steps=2, guidance=0.0))

    def directions(**spread: float) -> Floats:
        method = Diffusion("r4t_diffusion", sampler, ExactIndex(vectors), 3, 1, **spread)
        return method.retrieve(queries, seed=4).directions

    drawn, own = directions(spread=1.0), queries.vectors[:, None]
    assert np.array_equal(directions(), drawn)
    assert directions(spread=0.0) == pytest.approx(np.broadcast_to(own, drawn.shape), abs=1e-6)
    assert ((directions(spread=0.5) * own).sum(-1) > (drawn * own).sum(-1) + 1e-3).all()
