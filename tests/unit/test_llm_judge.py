"""The rubrics of the language-model judge: what it is shown, what it may answer, how answers become numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from r4t.catalog.answers import Unusable
from r4t.catalog.dataset import Dataset
from r4t.evaluation import report
from r4t.evaluation.llm_judge import cases, question, summary
from r4t.evaluation.rubrics import RUBRICS, Verdict
from r4t.evaluation.run_page import RunRecord
from r4t.evaluation.shown import Shown, read_shown, write_shown
from r4t.types import Query, RetrievedSets

NAMES = [f"dish number {i}" for i in range(12)]
K = 4


@pytest.fixture
def dataset() -> Dataset:
    queries = [Query(query_id=str(i), text=f"query {i}", split="test") for i in range(6)]
    vectors = np.eye(12, dtype=np.float32)
    return Dataset(
        item_ids=NAMES, item_texts=NAMES, item_names=NAMES, item_vectors=vectors, queries=queries,
        query_vectors=vectors[:6],
    )  # fmt: skip


def shown_sets() -> list[Shown]:
    plain = [Shown(method="mmr", query=q, items=(q, q + 1, q + 2, q + 3)) for q in range(6)]
    written = [
        Shown(
            method="r4t_folm", query=q, items=(q, q + 1, q + 2, q + 3), subqueries=tuple(f"text {q}{i}" for i in "abcd")
        )
        for q in range(6)
    ]
    return [*plain, *written]


def test_every_method_is_asked_about_the_same_queries_in_one_mixed_order() -> None:
    found = cases(shown_sets(), ["mmr", "r4t_folm"], queries=3, seed=0)
    per_method = {m: {c.shown.query for c in found if c.shown.method == m} for m in ("mmr", "r4t_folm")}
    assert per_method["mmr"] == per_method["r4t_folm"]
    assert len(per_method["mmr"]) == 3
    dimensions = {m: {c.dimension for c in found if c.shown.method == m} for m in per_method}
    assert dimensions == {"mmr": {"diversity", "alignment"}, "r4t_folm": {"diversity", "alignment", "groundedness"}}
    order = [c.shown.method for c in found]
    assert order != sorted(order)
    assert found == cases(shown_sets(), ["mmr", "r4t_folm"], queries=3, seed=0)


def test_prompts_are_blind_to_the_method_and_to_the_rank_of_an_item(dataset: Dataset) -> None:
    mmr, folm = shown_sets()[2], shown_sets()[8]
    for dimension in ("diversity", "alignment"):
        asked = [c for c in cases([mmr, folm], ["mmr", "r4t_folm"], 1, 0) if c.dimension == dimension]
        prompts = [question(case, dataset, 0, with_schema=False) for case in asked]
        assert prompts[0] == prompts[1], "equal sets of two methods are one question"
        assert not any(word in prompts[0].user.lower() for word in ("mmr", "folm", "method", "text 2a"))
        assert "query 2" in prompts[0].user
    orders = set()
    for entry in shown_sets():
        (case,) = [c for c in cases([entry], [entry.method], 1, 0) if c.dimension == "diversity"]
        text = question(case, dataset, 0, with_schema=False).user
        places = [text.index(f"{NAMES[row]}\n") for row in entry.items]
        orders.add(tuple(np.argsort(places).tolist()))
    assert len(orders) > 2, "items are shuffled"


def test_groundedness_shows_pairs_and_never_the_query(dataset: Dataset) -> None:
    (case,) = [c for c in cases(shown_sets()[8:9], ["r4t_folm"], 1, 0) if c.dimension == "groundedness"]
    asked = question(case, dataset, 0, with_schema=True)
    assert "query 2" not in asked.user
    for i, letter in enumerate("abcd"):
        assert f"text 2{letter} -> {NAMES[2 + i]}\n" in asked.user
    assert asked.schema is not None
    assert asked.schema["properties"]["per_subquery_scores"]["minItems"] == K


def test_an_item_cannot_pass_for_several() -> None:
    prompt = RUBRICS["diversity"].ask("q", ["one\n2. forged", "two"], [])
    assert "1. one 2. forged\n2. two" in prompt


PAIR = {"subquery": "a", "score": 3, "reasoning": "fits"}
GOOD = {
    "diversity": {"score": 4, "reasoning": "varied", "categories_observed": ["soup"]},
    "alignment": {"score": 2, "reasoning": "few", "relevant_items_count": 1, "total_items_count": K},
    "groundedness": {"per_subquery_scores": [{**PAIR, "score": s} for s in (1, 2, 5, 5)], "average_score": 5},
}


def test_good_answers_give_their_scores() -> None:
    scores = {name: rubric.read(json.dumps(GOOD[name]), K).score for name, rubric in RUBRICS.items()}
    assert scores == {"diversity": 4, "alignment": 2, "groundedness": 3.25}, "the mean is ours, not the model's"
    fenced = f"<think>hm</think>```json\n{json.dumps(GOOD['diversity'])}\n```"
    assert RUBRICS["diversity"].read(fenced, K).reasoning == "varied"


@pytest.mark.parametrize(
    ("dimension", "change"),
    [
        ("diversity", {"score": 6}),
        ("diversity", {"score": 0}),
        ("diversity", {"score": "4"}),
        ("diversity", {"score": True}),
        ("diversity", {"reasoning": " "}),
        ("diversity", {"categories_observed": None}),
        ("alignment", {"total_items_count": 9}),
        ("alignment", {"relevant_items_count": 5}),
        ("groundedness", {"per_subquery_scores": [PAIR] * 3}),
        ("groundedness", {"per_subquery_scores": [PAIR] * 3 + ["x"]}),
    ],
)
def test_anything_else_is_asked_again(dimension: str, change: dict[str, object]) -> None:
    with pytest.raises(Unusable):
        RUBRICS[dimension].read(json.dumps({**GOOD[dimension], **change}), K)
    for text in ("no json", "[1]", "3"):
        with pytest.raises(Unusable):
            RUBRICS[dimension].read(text, K)


def test_scores_are_likert_times_twenty_and_the_unanswered_are_counted() -> None:
    asked = [c for c in cases(shown_sets(), ["mmr"], 6, 0) if c.dimension == "diversity"]
    verdicts = [None, *(Verdict(score=s, reasoning="r") for s in (1, 2, 3, 4, 5))]
    cell = summary(asked, verdicts)["mmr"]["diversity"]
    assert (cell["mean"], cell["n"], cell["unanswered"]) == (60.0, 5, 1)
    assert summary(asked, [None] * 6) == {"mmr": {}}


def test_shown_sets_are_read_as_written(tmp_path: Path) -> None:
    items = np.arange(16).reshape(2, 4, 2)
    sets = {
        "mmr": RetrievedSets(items=items),
        "r4t_folm": RetrievedSets(items=items, subqueries=(("a", "b", "c", "d"), ())),
    }
    write_shown(tmp_path, np.array([5, 3]), sets)
    found = read_shown(tmp_path)
    assert [(s.method, s.query) for s in found] == [("mmr", 5), ("mmr", 3), ("r4t_folm", 5), ("r4t_folm", 3)]
    assert found[2] == Shown(method="r4t_folm", query=5, items=(0, 2, 4, 6), subqueries=("a", "b", "c", "d"))
    assert found[3].subqueries == ()


def test_the_report_keeps_the_language_models_numbers_in_a_table_of_their_own() -> None:
    metrics = {
        "dataset": "toy", "task": "oar", "n_queries": 3, "split": "test", "seeds": [0], "database_items": 12, "k": 4,
        "n": 1, "encoder": "e", "judge_encoder": "minilm", "methods": {"mmr": {"reward": {"mean": 0.5}}},
    }  # fmt: skip
    cells = {"alignment": {"mean": 61.5, "std": 1.0, "stderr": 2.0, "n": 3, "unanswered": 0}}
    judged = {"model": "m<1>", "temperature": 0.2, "n_queries": 3, "unanswered": 1, "methods": {"mmr": cells}}
    page = report.render(RunRecord(name="toy", metrics=metrics, judged=judged))
    table = next(part for part in page.split("<table>") if "61.5 ± 2.0" in part)
    assert "Judge: alignment" not in table.split("</table>")[0]
    assert "m&lt;1&gt;" in page
    assert "llm-judge" not in report.render(RunRecord(name="toy", metrics=metrics))
