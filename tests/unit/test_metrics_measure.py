"""What is measured about a method's sets: reward and terms, the judge, and latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from r4t.catalog.dataset import Dataset
from r4t.catalog.encoders import Encoder, load_encoder
from r4t.catalog.index import ExactIndex
from r4t.config import Config, parse_config
from r4t.evaluation.cost import cost_per_thousand
from r4t.evaluation.evaluate import comparisons, method_cells, method_values
from r4t.evaluation.judge import GROUNDED_SETS, Judge
from r4t.evaluation.latency import Answer, measure_latency
from r4t.evaluation.measure import Yardstick, measure
from r4t.evaluation.stopwatch import Stopwatch, TimedEncoder, TimedIndex
from r4t.fanout import format_answer
from r4t.scoring import SetScorer
from r4t.types import Query, RetrievedSets

NAMES = ["apple pie", "apple cake", "bean stew", "fish soup", "green salad", "rye bread", "plum jam", "hot cocoa"]
SUBQUERIES = (("apple pie", "fish soup", "warm bread"), ("salad", "cocoa", "sweet jam"))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("wordllama", 64)


@pytest.fixture(scope="module")
def dataset(encoder: Encoder) -> Dataset:
    texts = ["winter comfort", "summer party"]
    queries = [
        Query(query_id=str(i), text=text, split="test", references=(i, i + 1, 7)) for i, text in enumerate(texts)
    ]
    return Dataset(
        item_ids=[str(i) for i in range(len(NAMES))],
        item_texts=NAMES,
        item_names=NAMES,
        item_vectors=encoder.encode(NAMES),
        queries=queries,
        query_vectors=encoder.encode(texts),
    )


def settings(task: str, **objective: object) -> Config:
    return parse_config({"task": task, "fanout": {"k": 3, "n": 2}, "objective": objective, "encoder": {"dim": 64}})


def yardstick(dataset: Dataset, config: Config) -> Yardstick:
    return Yardstick(dataset=dataset, query_rows=np.arange(2), objective=config.objective, task=config.task)


def fan_outs(scorer: SetScorer) -> RetrievedSets:
    directions, items, _ = scorer.search(SUBQUERIES)
    return RetrievedSets(items=items, directions=directions, subqueries=SUBQUERIES, valid=np.array([True, True]))


@pytest.mark.parametrize(
    ("task", "objective"),
    [
        ("oar", {"kind": "content"}),
        ("oar", {"kind": "paper"}),
        ("wscr", {"kind": "coverage"}),
        ("wscr", {"kind": "coverage", "coverage_weighting": "inverse_frequency"}),
    ],
)
def test_the_measured_reward_is_the_training_reward(
    dataset: Dataset, encoder: Encoder, task: str, objective: dict[str, str]
) -> None:
    config = settings(task, **objective)
    scorer = SetScorer(dataset, encoder, config)
    trained = scorer.score([0, 1], [format_answer(texts) for texts in SUBQUERIES])
    values = measure(yardstick(dataset, config), fan_outs(scorer))
    np.testing.assert_allclose(values["reward"], trained.rewards, atol=1e-6)
    for term in ("groundedness", "alignment", "content_alignment"):
        np.testing.assert_allclose(values[term], trained.terms[term], atol=1e-6)
    if task == "wscr":
        recall = "recall_weighted" if objective.get("coverage_weighting") else "recall"
        np.testing.assert_allclose(values[recall], trained.terms["coverage"], atol=1e-6)


def test_an_invalid_answer_costs_the_reward_of_directions_but_not_of_items(dataset: Dataset, encoder: Encoder) -> None:
    for kind in ("paper", "content"):
        config = settings("oar", kind=kind)
        whole = fan_outs(SetScorer(dataset, encoder, config))
        assert whole.directions is not None
        directions = whole.directions.copy()
        directions[0] = np.nan
        broken = replace(whole, directions=directions, valid=np.array([False, True]), subqueries=((), SUBQUERIES[1]))
        values, intact = (measure(yardstick(dataset, config), sets) for sets in (broken, whole))
        assert values["invalid"].tolist() == [1.0, 0.0]
        assert np.isnan(values["alignment"][0])
        assert values["alignment"][1] == intact["alignment"][1]
        assert values["reward"][0] == (config.objective.invalid_reward if kind == "paper" else intact["reward"][0])


def test_methods_without_directions_have_a_reward_only_where_it_looks_at_items_alone(dataset: Dataset) -> None:
    sets = RetrievedSets(items=np.array([[[0], [2], [4]], [[1], [3], [5]]]))
    content = measure(yardstick(dataset, settings("oar", kind="content")), sets)
    assert "reward" in content
    assert not {"groundedness", "alignment", "manifold"} & content.keys()
    assert "reward" not in measure(yardstick(dataset, settings("oar", kind="paper")), sets)


def test_c58_terms_of_generated_rows_carry_their_own_names(dataset: Dataset) -> None:
    items = np.array([[[0], [2], [4]], [[1], [3], [5]]])
    sets = RetrievedSets(items=items, directions=dataset.item_vectors[items[:, :, 0]])
    values = measure(yardstick(dataset, settings("oar", kind="paper")), sets)
    assert "groundedness" not in values
    np.testing.assert_allclose(values["manifold"], 1.0, atol=1e-3)
    assert np.isfinite(values["reward"]).all()


def test_seeds_are_averaged_before_queries_are_compared(dataset: Dataset) -> None:
    config = settings("oar", kind="content")
    runs = [RetrievedSets(items=np.array([[[a], [2], [4]], [[1], [3], [b]]])) for a, b in ((0, 5), (7, 6))]
    each = [measure(yardstick(dataset, config), sets) for sets in runs]
    both = method_values(yardstick(dataset, config), runs)
    np.testing.assert_allclose(both["reward"], (each[0]["reward"] + each[1]["reward"]) / 2)
    gap = comparisons({"zero_shot": each[0], "mmr": both})["mmr"]["reward"]
    assert gap["mean"] == pytest.approx(float((both["reward"] - each[0]["reward"]).mean()), abs=1e-6)


def test_a_metric_that_no_query_has_makes_no_cell() -> None:
    cells = method_cells({"alignment": np.array([np.nan, np.nan]), "judge.diversity": np.ones(2)}, np.ones((2, 3), int))
    assert "alignment" not in cells
    assert cells["judge"]["diversity"]["mean"] == 1.0
    assert cells["distinct_overall"] == 1


def test_the_judge_reads_item_names_with_its_own_encoder(dataset: Dataset) -> None:
    other = load_encoder("wordllama", 128)
    renamed = replace(dataset, item_names=[f"dish {name}" for name in NAMES])
    items = np.array([[[0], [0], [0]], [[1], [3], [5]]])
    subqueries = ((), ("cake", "soup", "bread"))
    scores = Judge(other, renamed).score(np.arange(2), RetrievedSets(items=items, subqueries=subqueries))
    names = other.encode(renamed.item_names)
    queries = other.encode([query.text for query in dataset.queries])
    expected = [(names[items[b, :, 0]] @ queries[b]).mean() for b in range(2)]
    np.testing.assert_allclose(scores["alignment"], expected, atol=1e-5)
    assert scores["diversity"][0] == pytest.approx(1 / 3, abs=1e-4)
    assert np.isnan(scores["groundedness"][0])
    found = np.einsum("kd,kd->k", other.encode(list(subqueries[1])), names[items[1, :, 0]]).mean()
    assert scores["groundedness"][1] == pytest.approx(found, abs=1e-5)


def test_the_judge_reads_sub_queries_of_a_limited_number_of_sets(dataset: Dataset, encoder: Encoder) -> None:
    count = GROUNDED_SETS + 5
    items = np.zeros((count, 1, 1), dtype=np.int64)
    sets = RetrievedSets(items=items, subqueries=(("pie",),) * count)
    scores = Judge(encoder, dataset).score(np.zeros(count, dtype=np.int64), sets)
    assert np.isfinite(scores["groundedness"]).sum() == GROUNDED_SETS
    assert np.isfinite(scores["alignment"]).all()


def test_cached_judge_vectors_are_used_only_for_the_same_names(
    dataset: Dataset, encoder: Encoder, tmp_path: Path
) -> None:
    cache = tmp_path / "judge.safetensors"
    first = Judge(encoder, dataset, cache)
    stamp = cache.stat().st_mtime_ns
    np.testing.assert_array_equal(Judge(encoder, dataset, cache).items, first.items)
    assert cache.stat().st_mtime_ns == stamp
    renamed = replace(dataset, item_names=[*NAMES[1:], NAMES[0]])
    np.testing.assert_array_equal(Judge(encoder, renamed, cache).items, np.roll(first.items, -1, axis=0))


def test_c56_latency_excludes_warm_up_and_lets_methods_take_turns() -> None:
    now = 0.0
    calls: list[tuple[str, tuple[str, ...]]] = []

    def method(name: str, warm: float) -> Answer:
        def answer(texts: Sequence[str]) -> None:
            nonlocal now
            calls.append((name, tuple(texts)))
            now += 9.0 if sum(called == name for called, _ in calls) <= 2 else warm

        return answer

    methods = {"slow": method("slow", 0.02), "fast": method("fast", 0.001)}
    measured = measure_latency(methods, ["a", "b"], batches=(3,), repeats=4, warmup=2, settle=0, clock=lambda: now)
    assert [name for name, _ in calls] == ["slow", "fast"] * 6
    assert [texts for name, texts in calls if name == "slow"] == [("a", "b", "a"), ("b", "a", "b")] * 3
    assert {name: cells["3"]["p50"] for name, cells in measured.items()} == {"slow": 20.0, "fast": 1.0}
    assert measured["fast"]["3"] == {"p50": 1.0, "p95": 1.0, "own_p50": 1.0, "own_p95": 1.0}


def test_own_latency_leaves_out_what_encoding_and_search_took() -> None:
    now = spent = 0.0

    def answer(_: Sequence[str]) -> None:
        nonlocal now, spent
        now += 0.005
        spent += 0.003

    clock = {"clock": lambda: now, "shared": lambda: spent}
    measured = measure_latency({"mmr": answer}, ["a"], batches=(2,), repeats=3, settle=0, **clock)
    assert measured["mmr"]["2"] == pytest.approx({"p50": 5.0, "p95": 5.0, "own_p50": 2.0, "own_p95": 2.0})


def test_encoding_and_search_are_timed_and_unchanged(encoder: Encoder) -> None:
    watch = Stopwatch()
    timed, texts = TimedEncoder(encoder, watch), ["a stew", "", "a cake"]
    np.testing.assert_array_equal(timed.encode(texts), encoder.encode(texts))
    assert (timed.fingerprint(), timed.dim) == (encoder.fingerprint(), encoder.dim)
    encoding = watch.seconds
    assert encoding > 0
    exact = ExactIndex(encoder.encode(NAMES))
    index = TimedIndex(exact, watch)
    mine, theirs = (found.search(encoder.encode(["stew"]), 3) for found in (index, exact))
    np.testing.assert_array_equal(mine[0], theirs[0])
    np.testing.assert_array_equal(mine[1], theirs[1])
    assert watch.seconds > encoding


def test_cost_is_the_rent_of_all_cores_for_as_long_as_the_queries_take() -> None:
    assert cost_per_thousand(3600.0, 1, cores=2, price=0.05) == pytest.approx(0.1)  # 1,000 x 3.6 s = one hour
    assert cost_per_thousand(3600.0, 8, cores=2, price=0.05) == pytest.approx(0.1 / 8)


def test_only_the_papers_depth_looks_past_the_lists_that_are_shown(dataset: Dataset) -> None:
    config = settings("wscr", kind="coverage")
    shallow = replace(yardstick(dataset, config), n=1, paper_n=2)
    items = np.array([[[5, 0], [6, 1]], [[5, 3], [6, 4]]])
    values = measure(shallow, RetrievedSets(items=items))  # references (0, 1, 7) and (1, 2, 7)
    np.testing.assert_allclose(values["recall"], [0, 0])
    np.testing.assert_allclose(values["recall_5k"], [2 / 3, 0])
    np.testing.assert_allclose(values["hit_5k"], [1, 0])
    assert values["reward"].tolist() == [0, 0]
    assert "recall_5k" not in measure(yardstick(dataset, config), RetrievedSets(items=items))


def test_labels_of_a_catalogue_are_measured_where_it_has_them(dataset: Dataset) -> None:
    config = settings("wscr", kind="coverage")
    items = np.array([[[0], [2]], [[2], [7]]])
    plain = measure(yardstick(dataset, config), RetrievedSets(items=items))
    assert not {"categories", "category_coverage", "fill_in_blank"} & plain.keys()
    kinds = ["pie", "cake", "stew", "soup", "salad", "bread", "jam", None]
    labelled = replace(dataset, facts={"category": kinds})
    blanks = np.array([[0, 4, 5, 6], [-1] * 4])
    values = measure(replace(yardstick(labelled, config), blanks=blanks), RetrievedSets(items=items))
    np.testing.assert_allclose(values["categories"], [1, 0.5])
    np.testing.assert_allclose(values["category_coverage"], [1 / 2, 1 / 2])  # of pie and cake; of cake and stew
    np.testing.assert_allclose(values["fill_in_blank"], [1, np.nan])


def test_items_fit_their_own_query_better_than_another(dataset: Dataset) -> None:
    nearest = (dataset.query_vectors @ dataset.item_vectors.T).argmax(axis=1)
    values = measure(yardstick(dataset, settings("oar")), RetrievedSets(items=nearest[:, None, None]))
    swapped = np.einsum("bd,bd->b", dataset.item_vectors[nearest], dataset.query_vectors[::-1])
    np.testing.assert_allclose(values["content_alignment_shuffled"], swapped, rtol=1e-5)
    assert (values["content_alignment_shuffled"] < values["content_alignment"]).all()
