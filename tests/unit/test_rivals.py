"""The classical rivals against their definitions, written out."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from r4t.catalog.dataset import Dataset
from r4t.catalog.encoders import Encoder, load_encoder
from r4t.catalog.index import ExactIndex
from r4t.config import Evaluate
from r4t.methods import DPP, Facets, NoFanout, QueryBatch, Rocchio, SetRetriever
from r4t.methods.build import UNTRAINED, build_untrained
from r4t.methods.lexical import BM25
from r4t.methods.pool import dpp_select
from r4t.types import Query

K = 4
KINDS = ("apple", "carrot", "lemon", "tomato", "walnut", "ginger")
BASES = ("soup", "cakes", "salad", "bread with butter", "pie")
TEXTS = [f"{kind} {base}" for kind in KINDS for base in BASES]
QUERIES = ("salads for a picnic", "apples", "zzz unheard of")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("wordllama", 64)


@pytest.fixture(scope="module")
def dataset(encoder: Encoder) -> Dataset:
    return Dataset(
        item_ids=TEXTS,
        item_texts=TEXTS,
        item_names=TEXTS,
        item_vectors=encoder.encode(TEXTS),
        queries=[Query(query_id=text, text=text, split="train") for text in QUERIES],
        query_vectors=encoder.encode(list(QUERIES)),
    )


@pytest.fixture(scope="module")
def index(dataset: Dataset) -> ExactIndex:
    return ExactIndex(dataset.item_vectors)


@pytest.fixture
def queries(dataset: Dataset) -> QueryBatch:
    return QueryBatch.of_rows(dataset, [0, 1, 2])


def pools(batch: int, size: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(batch, size, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    return -np.sort(-rng.random((batch, size)).astype(np.float32)), vectors


@pytest.mark.parametrize("quality", [0.0, 0.5, 0.9])
def test_dpp_takes_the_item_that_raises_the_determinant_of_the_kernel_most(quality: float) -> None:
    relevance, vectors = pools(3, 14, 6)
    chosen = dpp_select(relevance, vectors, 5, quality)
    for b in range(3):
        q = np.exp(quality / (2 * (1 - quality)) * relevance[b].astype(np.float64))
        kernel = q[:, None] * (vectors[b].astype(np.float64) @ vectors[b].T.astype(np.float64)) * q
        taken: list[int] = []
        for _ in range(5):
            left = [i for i in range(14) if i not in taken]
            taken.append(max(left, key=lambda i: round(np.linalg.det(kernel[np.ix_([*taken, i], [*taken, i])]), 6)))
        assert chosen[b].tolist() == taken


def test_greedy_dpp_comes_near_the_best_of_all_sets() -> None:
    relevance, vectors = pools(1, 12, 8)
    kernel = vectors[0].astype(np.float64) @ vectors[0].T.astype(np.float64)
    every = [np.linalg.slogdet(kernel[np.ix_(s, s)])[1] for s in itertools.combinations(range(12), 4)]
    found = dpp_select(relevance, vectors, 4, 0.0)[0]
    assert np.mean(np.linalg.slogdet(kernel[np.ix_(found, found)])[1] >= np.array(every)) > 0.9


def test_dpp_shows_no_copy_of_a_chosen_item_while_others_are_left() -> None:
    relevance, vectors = pools(1, 8, 16)
    vectors[0, 1] = vectors[0, 0]
    assert dpp_select(relevance, vectors, 8, 0.5)[0].tolist()[-1] in (0, 1)
    assert len(set(dpp_select(relevance, vectors, 8, 0.5)[0].tolist())) == 8


def test_dpp_refuses_a_weight_that_leaves_no_diversity(dataset: Dataset, index: ExactIndex) -> None:
    with pytest.raises(ValueError, match=r"quality weight is 1.*\[0, 1\)"):
        DPP(index, dataset.item_vectors, K, 1, quality=1.0)


def test_facets_show_one_item_of_each_cluster_the_nearest_to_the_query() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(K, 16, dtype=np.float32)
    vectors = np.repeat(centres, 6, axis=0) + 0.05 * rng.normal(size=(6 * K, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = (vectors[1] + 0.5 * vectors[8] + 0.3 * vectors[14] + 0.2 * vectors[20])[None]
    query /= np.linalg.norm(query)
    batch = QueryBatch(rows=np.zeros(1, np.int64), texts=("",), vectors=query)
    shown = Facets(ExactIndex(vectors), vectors, K, 1).retrieve(batch, 0).items[0, :, 0]
    relevance = (vectors @ query[0]).reshape(K, 6)
    assert set(shown) == {6 * c + int(relevance[c].argmax()) for c in range(K)}
    assert np.all(np.diff((vectors @ query[0])[shown]) < 0), "the nearest facet comes first"


def test_facets_fill_the_set_where_items_repeat_each_other() -> None:
    vectors = np.eye(2, 16, dtype=np.float32).repeat(5, axis=0)
    batch = QueryBatch(rows=np.zeros(1, np.int64), texts=("",), vectors=vectors[:1])
    shown = Facets(ExactIndex(vectors), vectors, K, 1).retrieve(batch, 0).items[0, :, 0]
    assert len(set(shown.tolist())) == K
    assert {0, 5} <= set(shown.tolist())


def test_rocchio_moves_the_query_towards_its_nearest_items(
    dataset: Dataset, index: ExactIndex, queries: QueryBatch
) -> None:
    method = Rocchio(index, dataset.item_vectors, K, 2, weight=0.4)
    found, expanded = method.retrieve(queries, 0), method.expanded(queries.vectors)
    for b in range(len(queries)):
        near = np.argsort(-(dataset.item_vectors @ queries.vectors[b]), kind="stable")[:10]
        moved = 0.6 * queries.vectors[b] + 0.4 * dataset.item_vectors[near].mean(axis=0)
        np.testing.assert_allclose(expanded[b], moved / np.linalg.norm(moved), atol=1e-6)
        order = np.argsort(-(dataset.item_vectors @ moved), kind="stable")
        assert set(found.items[b].reshape(-1)) == set(order[: 2 * K])
    plain = Rocchio(index, dataset.item_vectors, K, 2, weight=0.0).retrieve(queries, 0)
    np.testing.assert_array_equal(plain.items, NoFanout(index, K, 2).retrieve(queries, 0).items)


def bm25(document: list[str], query: dict[str, float], corpus: list[list[str]]) -> float:
    """Robertson's formula with Lucene's idf, k1 = 1.5, b = 0.75."""
    average = sum(map(len, corpus)) / len(corpus)
    total = 0.0
    for word, weight in query.items():
        df = sum(word in other for other in corpus)
        tf = document.count(word)
        idf = math.log(1 + (len(corpus) - df + 0.5) / (df + 0.5))
        total += weight * idf * tf / (tf + 1.5 * (1 - 0.75 + 0.75 * len(document) / average))
    return total


def test_bm25_scores_are_its_formula_over_stems(index: ExactIndex) -> None:
    method = BM25(TEXTS, index, K, 1, feedback=0.0)
    corpus = method.words(TEXTS)
    assert corpus[3] == ["appl", "bread", "butter"], "stems, and no stop words"
    scores = method.scores(["salads of lemon", "nothing known"])
    query = {"salad": 0.5, "lemon": 0.5}
    np.testing.assert_allclose(scores[0], [bm25(d, query, corpus) for d in corpus], rtol=1e-5)
    assert not scores[1].any()


def test_bm25_expands_the_query_by_rm3(index: ExactIndex) -> None:
    method = BM25(TEXTS, index, K, 1, feedback=0.6)
    corpus = method.words(TEXTS)
    plain = np.array([bm25(d, {"appl": 1.0}, corpus) for d in corpus])
    best = [i for i in np.argsort(-plain, kind="stable")[:10] if plain[i] > 0]
    model: Counter[str] = Counter()
    for i in best:
        for word in corpus[i]:
            model[word] += plain[i] / plain[best].sum() / len(corpus[i])
    likeliest = dict(sorted(model.items(), key=lambda pair: (-pair[1], pair[0]))[:10])
    query = {word: 0.6 * p / sum(likeliest.values()) for word, p in likeliest.items()}
    query["appl"] += 0.4
    np.testing.assert_allclose(method.scores(["apples"])[0], [bm25(d, query, corpus) for d in corpus], rtol=1e-5)
    assert method.scores(["apples"])[0][TEXTS.index("carrot pie")] > 0, "a word of the feedback, not of the query"


def test_bm25_fills_a_set_with_the_nearest_items_where_no_word_matches(index: ExactIndex, queries: QueryBatch) -> None:
    found = BM25(TEXTS, index, K, 2, feedback=0.5).retrieve(queries, 0)
    near = NoFanout(index, K, 2).retrieve(queries, 0)
    np.testing.assert_array_equal(found.items[2], near.items[2])
    lexical = BM25(TEXTS, index, K, 2, feedback=0.0).retrieve(queries, 0)
    pool = lexical.items[0].reshape(-1)
    assert {TEXTS.index(f"{kind} salad") for kind in KINDS} < set(pool.tolist())
    assert len(set(pool.tolist())) == 2 * K
    assert all(TEXTS[row].endswith("salad") for row in lexical.items[0, :, 0])


def test_bm25_of_items_without_words_is_the_plain_query(index: ExactIndex, queries: QueryBatch) -> None:
    found = BM25([""] * len(TEXTS), index, K, 1, feedback=0.5).retrieve(queries, 0)
    np.testing.assert_array_equal(found.items, NoFanout(index, K, 1).retrieve(queries, 0).items)


@pytest.fixture(params=["mmr", "dpp", "kmeans", "prf", "bm25"])
def rival(request: pytest.FixtureRequest, dataset: Dataset, index: ExactIndex) -> tuple[SetRetriever, SetRetriever]:
    flat, deep = (build_untrained(request.param, dataset, index, Evaluate(), K, n) for n in (1, 3))
    return flat, deep


def test_every_rival_fills_k_lists_of_n_alike_in_every_batch_and_seed(
    rival: tuple[SetRetriever, SetRetriever], queries: QueryBatch, dataset: Dataset
) -> None:
    flat, deep = rival
    for method, n in ((flat, 1), (deep, 3)):
        found = method.retrieve(queries, seed=0)
        assert found.items.shape == (3, K, n)
        assert all(len(set(row.tolist())) == K for row in found.items[:, :, 0]), "no item twice in a shown set"
        np.testing.assert_array_equal(found.items, method.retrieve(queries, seed=7).items)
        alone = method.retrieve(QueryBatch.of_rows(dataset, [1]), seed=0)
        np.testing.assert_array_equal(found.items[1], alone.items[0])
    np.testing.assert_array_equal(flat.retrieve(queries, 0).items[:, :, 0], deep.retrieve(queries, 0).items[:, :, 0])
    assert flat.name in UNTRAINED
