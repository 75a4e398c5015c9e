"""Signs of collapse: each falls when its own kind of decay sets in, and raises its own alarm."""

from __future__ import annotations

import numpy as np
import pytest

from r4t.collapse import alarms, failure_modes, vital_signs
from r4t.config import Alarms
from r4t.fanout import format_answer, parse
from r4t.types import ScoredBatch

HEALTHY = (["red soup", "green cake"], ["old pie", "new salad"])


def scored(texts: list[str], items: list[list[int]], cosine: list[float]) -> ScoredBatch:
    return ScoredBatch(
        fanouts=tuple(parse(text, 2) for text in texts),
        rewards=np.zeros(len(texts), "f4"),
        terms={},
        items=np.array(items)[:, :, None],
        row_credit=np.zeros((len(texts), 2), "f4"),
        cosine=np.array(cosine, "f4"),
    )


def signs(
    subqueries: tuple[list[str], ...] = HEALTHY,
    items: tuple[list[int], ...] = ([1, 2], [3, 4]),
    cosine: tuple[float, ...] = (0.2, 0.4),
    broken: int = 0,
) -> dict[str, float]:
    texts = [format_answer(s) for s in subqueries] + ["broken"] * broken
    return vital_signs(scored(texts, [*items, *[[-1, -1]] * broken], [*cosine, *[np.nan] * broken]))


def test_healthy_answers() -> None:
    found = signs()
    assert found == pytest.approx({"distinct": 1, "distinct_items": 4, "type_token": 1, "spread": 0.7, "valid": 1})


def test_invalid_answers_count_in_one_sign_alone() -> None:
    found = signs(broken=2)
    assert found == pytest.approx(signs() | {"valid": 0.5})


@pytest.mark.parametrize(
    ("name", "decayed"),
    [
        ("distinct", signs(items=([1, 1], [3, 4]))),
        ("distinct_items", signs(items=([1, 2], [1, 2]))),
        ("type_token", signs(subqueries=(["red", "red"], ["red", "red"]))),
        ("spread", signs(cosine=(0.9, 0.9))),
        ("valid", signs(broken=1)),
    ],
)
def test_each_decay_raises_its_own_alarm(name: str, decayed: dict[str, float]) -> None:
    limits = Alarms(distinct=0.8, distinct_items=0.7, type_token=0.5, spread=0.6, valid=0.9)
    assert alarms(signs(), signs(), limits) == []
    raised = alarms(decayed, signs(), limits)
    assert name in raised
    assert set(raised) - {name} <= {"distinct"} if name == "distinct_items" else raised == [name]


def test_a_batch_without_a_valid_answer_raises_every_alarm() -> None:
    dead = vital_signs(scored(["x", "y"], [[-1, -1]] * 2, [np.nan] * 2))
    assert set(dead.values()) == {0.0}
    assert alarms(dead, signs(), Alarms()) == list(Alarms.model_fields)


START = signs() | {
    "reward": 0.3,
    "groundedness": 0.2,
    "alignment": 0.3,
    "content_alignment": 0.3,
    "diversity": 0.6,
    "judge/diversity": 0.5,
    "judge/alignment": 0.3,
}


@pytest.mark.parametrize(
    ("mode", "change"),
    [
        ("coordinate_gaming", {"groundedness": 0.9, "distinct_items": 1.0}),
        ("paraphrase_collapse", {"spread": 0.1, "alignment": 0.9}),
        ("semantic_drift", {"content_alignment": 0.1}),
        ("over_anchoring", {"content_alignment": 0.4, "diversity": 0.4}),
        ("judge_disagrees", {"reward": 0.4, "judge/alignment": 0.2}),
    ],
)
def test_each_way_to_game_the_reward_has_its_name(mode: str, change: dict[str, float]) -> None:
    assert failure_modes(START, START, Alarms()) == []
    assert failure_modes(START | change, START, Alarms()) == [mode]
    better = {"reward": 0.5, "diversity": 0.7, "content_alignment": 0.4, "judge/alignment": 0.4, "groundedness": 0.6}
    assert failure_modes(START | better, START, Alarms()) == []


def test_leaving_the_query_for_its_references_is_no_drift() -> None:
    start = START | {"coverage": 0.4}
    assert failure_modes(start | {"content_alignment": 0.1, "coverage": 0.5}, start, Alarms()) == []
    assert failure_modes(start | {"content_alignment": 0.1, "coverage": 0.4}, start, Alarms()) == ["semantic_drift"]


def test_modes_without_their_numbers_are_not_named() -> None:
    unjudged = {name: value for name, value in START.items() if not name.startswith("judge/")}
    assert failure_modes(unjudged | {"reward": 9.0}, unjudged, Alarms()) == []
    assert failure_modes(START, {}, Alarms()) == []
