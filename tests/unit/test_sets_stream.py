"""Who gets which set: against a list that is cut by hand."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sets_fixtures import ROWS, small_dataset

from r4t.errors import UserError
from r4t.sets import SetStream, TargetSets


def stream(n: int, **changes: object) -> SetStream:
    dataset, rng = small_dataset(), np.random.default_rng(0)
    targets = TargetSets(
        query=(np.arange(n) % 6).astype(np.int32),
        rows=rng.integers(0, 30, (n, ROWS), dtype=np.int32),
        table=dataset.item_vectors,
        query_vectors=dataset.query_vectors,
    )
    return SetStream(**{"targets": targets, "digest": "d", "batch": 4, "stop": n, **changes})  # type: ignore[arg-type]


def order(n: int, epochs: int, seed: int = 0) -> list[int]:
    """The stream as one list."""
    return stream(n).targets.drawn(np.arange(n * epochs), seed)[0].tolist()


def taken(one: SetStream, workers: int = 1) -> list[list[int]]:
    """What a loader with so many workers hands out: their batches in turn."""
    lists = [[batch.chosen.tolist() for batch in one.batches(worker, workers)] for worker in range(workers)]
    return [lists[turn % workers][turn // workers] for turn in range(sum(map(len, lists)))]


@settings(max_examples=80)
@given(st.integers(1, 50), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2))
def test_ranks_and_workers_cut_up_the_stream(n: int, batch: int, world: int, workers: int, epochs: int):
    """Batch i of the whole stream is rank i mod world's; together they are every epoch's sets once."""
    whole = order(n, epochs)
    cut = [whole[start : start + batch] for start in range(0, len(whole), batch)]
    ranks = [taken(stream(n, batch=batch, rank=rank, world=world, stop=epochs * n), workers) for rank in range(world)]
    assert ranks == [cut[rank::world] for rank in range(world)]
    for epoch in range(epochs):
        assert sorted(whole[epoch * n : (epoch + 1) * n]) == list(range(n))


@settings(max_examples=80)
@given(
    st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(0, 9), st.integers(1, 5), st.integers(1, 4)
)
def test_resumes_at_the_sample_for_other_ranks_and_batches(
    n: int, batch: int, world: int, steps: int, later_batch: int, later_world: int
):
    first = [stream(n, batch=batch, rank=rank, world=world) for rank in range(world)]
    before = [sets for one in first for sets in taken(one)[:steps]]
    state = json.loads(json.dumps(first[0].state(steps)))
    after = [
        sets
        for rank in range(later_world)
        for sets in taken(stream(n, batch=later_batch, rank=rank, world=later_world).resumed(state))
    ]
    assert sorted(one for sets in [*before, *after] for one in sets) == list(range(n))


def test_a_resumed_stream_repeats_the_rest_bit_for_bit():
    one = stream(23, stop=46)
    whole = list(one.batches())
    rest = list(one.resumed(one.state(5)).batches())
    assert len(rest) == len(whole) - 5
    for expected, found in zip(whole[5:], rest, strict=True):
        assert expected.sets.tobytes() == found.sets.tobytes()
        assert expected.queries.tobytes() == found.queries.tobytes()


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 5))
def test_equal_ranks_lose_fewer_than_one_round(n: int, batch: int, world: int):
    ranks = [taken(stream(n, batch=batch, rank=rank, world=world, equal=True)) for rank in range(world)]
    assert len({len(one) for one in ranks}) == 1
    given_out = [one for rank in ranks for sets in rank for one in sets]
    assert len(set(given_out)) == len(given_out) > n - world * batch


def test_an_endless_stream_is_what_the_trainer_draws():
    endless = stream(10, batch=3, rank=1, world=2, stop=None)
    for step, batch in zip(range(9), endless.batches(), strict=False):
        sets, queries = endless.targets.draw(step, batch=3, seed=0, rank=1, world=2)
        assert sets.tobytes() == batch.sets.tobytes()
        assert queries.tobytes() == batch.queries.tobytes()
    assert step == 8


@pytest.mark.parametrize("other", [{"digest": "other"}, {"seed": 1}])
def test_a_state_of_other_sets_is_refused(other: dict[str, object]):
    with pytest.raises(UserError, match="saved state"):
        stream(10, **other).resumed(stream(10).state(1))


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"rank": 2, "world": 2}])
def test_impossible_streams_are_refused(wrong: dict[str, int]):
    with pytest.raises(ValueError, match="no stream"):
        stream(10, **wrong)
