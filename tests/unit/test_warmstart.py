"""The warm start's teacher: what it lists, in which order and in which words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r4t.catalog.dataset import Dataset
from r4t.config import WarmStart, parse_config
from r4t.errors import UserError
from r4t.types import Query
from r4t.warmstart import excerpt, teach

NAMES = ["beef stew with carrots and red wine", "apple pie", "crème brûlée", "tomato soup", "green salad", "rye bread"]
SET = (3, 0, 5)  # no order that sorting or chance would give each time


def dataset() -> Dataset:
    vectors = np.eye(len(NAMES), dtype=np.float32)
    return Dataset(
        item_ids=[str(i) for i in range(len(NAMES))],
        item_texts=NAMES,
        item_names=NAMES,
        item_vectors=vectors,
        queries=[Query(query_id="q", text="dinner", split="train", references=SET)],
        query_vectors=vectors[1:2],
    )


def lessons(k: int, **settings: object) -> list[list[str]]:
    config = WarmStart.model_validate({"fanouts_per_query": 20, "pool": len(NAMES), **settings})
    return teach(dataset(), [0], k, config, seed=0)[0]


def source(subquery: str) -> int:
    """The item that a sub-query was taken from."""
    return next(i for i, name in enumerate(NAMES) if subquery in name)


@given(name=st.sampled_from([*NAMES, "Soup (Rotriewesuppe)", "with", "'Best' pie, ever"]), seed=st.integers(0, 100))
def test_excerpts_are_short_spans_of_the_name(name: str, seed: int) -> None:
    words = excerpt(name, np.random.default_rng(seed)).split()
    assert 1 <= len(words) <= 4
    assert len(words) == 1 or words[-1] not in {"with", "and", "in"}
    assert all(word in name.lower() for word in words)


def test_sets_are_taught_by_whole_names_in_any_order() -> None:
    fanouts = lessons(3, source="sets")
    assert all(sorted(fanout) == sorted(NAMES[item] for item in SET) for fanout in fanouts)
    assert len({tuple(fanout) for fanout in fanouts}) > 1


def test_in_order_teaches_excerpts_in_the_order_of_the_set() -> None:
    fanouts = lessons(5, source="sets", in_order=True)
    assert all(tuple(source(subquery) for subquery in fanout[:3]) == SET for fanout in fanouts)
    assert all(len(subquery.split()) <= 4 for fanout in fanouts for subquery in fanout)
    assert len({fanout[1] for fanout in fanouts}) > 1  # the long name is cut anew each time
    assert all(len(fanout) == 5 for fanout in fanouts)


def test_a_set_longer_than_the_fan_out_is_cut() -> None:
    assert all([source(s) for s in fanout] == [3, 0] for fanout in lessons(2, source="sets", in_order=True))


def test_without_sets_the_teacher_stays_near_the_query() -> None:
    fanouts = lessons(1, noise=0.0)
    assert {source(fanout[0]) for fanout in fanouts} == {1}


def test_an_order_without_sets_is_refused() -> None:
    with pytest.raises(UserError, match=r"in_order.*warm_start\.source to 'sets'"):
        parse_config({"warm_start": {"in_order": True}})
