"""Which answers stand in which shard, and when a policy writes too little to go on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r4t.config import Sets
from r4t.errors import UserError
from r4t.sets.answers import STATUSES
from r4t.sets.parsed import ParseCount, count_parsed
from r4t.sets.slices import slices


@given(st.integers(1, 30), st.integers(1, 20), st.integers(1, 9), st.integers(1, 40))
def test_every_answer_stands_in_exactly_one_shard(queries: int, samples: int, shard_queries: int, limit: int):
    rows = np.arange(100, 100 + queries)
    parts = slices(rows, Sets(samples_per_query=samples, shard_queries=shard_queries, shard_answers=limit))
    answers = [(q, s) for part in parts for q in part.queries for s in range(part.first, part.first + part.samples)]
    assert answers == [(q, s) for q in rows for s in range(samples)]
    assert all(part.answers <= limit and len(part.queries) <= shard_queries for part in parts)


def test_a_large_query_is_split_and_small_ones_are_not():
    parts = slices(np.arange(2), Sets(samples_per_query=5, shard_answers=2))
    assert [(part.queries, part.first, part.samples) for part in parts] == [
        (queries, first, n) for queries in ((0,), (1,)) for first, n in ((0, 2), (2, 2), (4, 1))
    ]
    assert [part.queries for part in slices(np.arange(5), Sets(samples_per_query=5, shard_answers=14))] == [
        (0, 1),
        (2, 3),
        (4,),
    ]


def status(*names: str) -> np.ndarray:
    return np.array([STATUSES.index(name) for name in names], np.int8)


def test_a_policy_that_writes_nothing_readable_is_stopped_with_rate_reasons_and_examples():
    one = count_parsed(2, status("cut", "no_block", "cut", "ok"), ["endless", "hm", "e" * 500, "fine"])
    (one + one).check(0.5, 5, "the policy p")  # four queries say too little
    with pytest.raises(UserError) as stopped:
        (one + one + one).check(0.5, 5, "the policy p")
    for fragment in (
        "3 of 12 answers of the policy p to 6 queries",
        "25.0%",
        "cut 6",
        "no_block 3",
        "'endless'",
        "'hm'",
    ):
        assert fragment in str(stopped.value)
    assert len(str(stopped.value)) < 1000
    (one + one + one).check(0.25, 5, "the policy p")


def test_no_answer_at_all_is_below_any_minimum_but_zero():
    nothing = ParseCount(queries=64) + count_parsed(1, status("empty"), ["<queries>[]</queries>"])
    with pytest.raises(UserError, match=r"0 of 1 .*empty 1"):
        nothing.check(1e-9, 64, "it")
    nothing.check(0.0, 64, "it")
