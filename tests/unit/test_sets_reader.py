from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sets_fixtures import DIM, ROWS, invalid, record, small_dataset, unit, write

from r4t.config import Config
from r4t.errors import UserError
from r4t.sets import TargetSets, load_targets
from r4t.sets.reader import permute_rows


def config(**sets: float) -> Config:
    return Config.model_validate({"sets": sets})


def targets_of(n: int) -> TargetSets:
    dataset = small_dataset()
    rng = np.random.default_rng(0)
    return TargetSets(
        query=np.arange(n) % 6,
        rows=rng.integers(0, 30, (n, ROWS)),
        table=dataset.item_vectors,
        query_vectors=dataset.query_vectors,
    )


def test_c28_gathered_rows_are_database_rows_bit_for_bit(tmp_path: Path):
    dataset = small_dataset()
    records = [record(q, s) for q in range(6) for s in range(2)]
    write(tmp_path, 0, records[:6])
    write(tmp_path, 1, records[6:])
    targets = load_targets(tmp_path, dataset, config())
    sets, queries = targets.gather(np.arange(len(targets)))
    assert sets.shape == (12, ROWS, DIM)
    for i, one in enumerate(records):
        assert sets[i].tobytes() == dataset.item_vectors[list(one.rows)].tobytes()
        assert queries[i].tobytes() == dataset.query_vectors[one.query].tobytes()
    drawn, _ = targets.draw(0, batch=5, seed=0)
    database = {row.tobytes() for row in dataset.item_vectors}
    assert all(row.tobytes() in database for row in drawn.reshape(-1, DIM))


def test_c29_subquery_targets_come_from_the_right_shards_table(tmp_path: Path):
    rng = np.random.default_rng(2)
    tables = [unit(rng, 3, DIM) for _ in range(2)]
    write(tmp_path, 0, [record(0, 0, rows=(2, 1, 0, 2))], tables[0])
    write(tmp_path, 1, [record(1, 0, rows=(0, 1, 1, 0))], tables[1])
    sets, _ = load_targets(tmp_path, small_dataset(), config()).gather(np.array([0, 1]))
    assert np.allclose(sets[0], tables[0][[2, 1, 0, 2]], atol=1e-3)
    assert np.allclose(sets[1], tables[1][[0, 1, 1, 0]], atol=1e-3)
    assert np.allclose(np.linalg.norm(sets, axis=-1), 1, atol=1e-6)


def test_c31_unparsable_answers_are_left_out_and_nothing_else(tmp_path: Path):
    write(tmp_path, 0, [record(0, 0, reward=-0.9), invalid(0, 1), record(1, 0, reward=0.1)])
    assert load_targets(tmp_path, small_dataset(), config()).query.tolist() == [0, 1]


def test_c31_reward_filters_are_switches(tmp_path: Path):
    rewards = {0: [0.1, 0.9, 0.5, 0.4], 1: [0.2, 0.3, 0.25, 0.6]}
    write(tmp_path, 0, [record(q, s, reward=r) for q, row in rewards.items() for s, r in enumerate(row)])
    dataset = small_dataset()
    assert len(load_targets(tmp_path, dataset, config())) == 8
    assert load_targets(tmp_path, dataset, config(min_reward=0.4)).query.tolist() == [0, 0, 0, 1]
    assert load_targets(tmp_path, dataset, config(top_fraction=0.25)).query.tolist() == [0, 1]
    assert len(load_targets(tmp_path, dataset, config(top_fraction=0.5))) == 4


def test_top_fraction_counts_valid_answers_only(tmp_path: Path):
    write(tmp_path, 0, [record(0, 0, reward=0.2), invalid(0, 1), invalid(0, 2), record(0, 3, reward=0.5)])
    kept = load_targets(tmp_path, small_dataset(), config(top_fraction=0.5))
    assert kept.rows.tolist() == [list(record(0, 3).rows)]


@pytest.mark.parametrize("query", [6, 9])
def test_c34_sets_of_validation_or_test_queries_are_refused(tmp_path: Path, query: int):
    write(tmp_path, 0, [record(0, 0), record(query, 0)])
    with pytest.raises(UserError, match="not in the training split"):
        load_targets(tmp_path, small_dataset(), config())


def test_nothing_to_read_names_the_remedy(tmp_path: Path):
    with pytest.raises(UserError, match="run the stage 'sets'"):
        load_targets(tmp_path, small_dataset(), config())
    write(tmp_path, 0, [record(0, 0, reward=0.0)])
    with pytest.raises(UserError, match=r"sets\.min_reward"):
        load_targets(tmp_path, small_dataset(), config(min_reward=2.0))


def test_c43_rows_are_permuted_anew_at_every_draw():
    targets = targets_of(6)
    draws = [targets.draw(step, batch=6, seed=0)[0] for step in range(4)]  # one epoch each: the same six sets
    again = targets.draw(2, batch=6, seed=0)[0]
    assert np.array_equal(draws[2], again)
    contents = [sorted(sorted(row.tobytes() for row in s) for s in draw) for draw in draws]
    assert all(content == contents[0] for content in contents)
    orders = {tuple(row.tobytes() for row in s) for draw in draws for s in draw}
    assert len(orders) > 12


def test_c43_every_row_visits_every_place_equally():
    permuted = permute_rows(np.broadcast_to(np.arange(4), (8000, 4)), np.random.default_rng(0))
    assert (np.sort(permuted, axis=1) == np.arange(4)).all()
    for row in range(4):
        assert np.abs((permuted == row).mean(axis=0) - 0.25).max() < 0.02


@given(st.integers(2, 23), st.integers(1, 4), st.integers(1, 9), st.integers(0, 5))
def test_ranks_share_out_every_epoch(n: int, world: int, batch: int, seed: int):
    """Over steps and ranks, every set comes once before any comes twice."""
    targets = targets_of(n)
    key = {tuple(sorted(rows)): i for i, rows in enumerate(targets.rows.tolist())}
    places = {vector.tobytes(): i for i, vector in enumerate(targets.table)}
    drawn = []
    for step in range(-(-3 * n // (world * batch))):
        for rank in range(world):
            sets, _ = targets.draw(step, batch=batch, seed=seed, rank=rank, world=world)
            drawn += [key[tuple(sorted(places[row.tobytes()] for row in s))] for s in sets]
    for epoch in range(len(drawn) // n):
        assert sorted(drawn[epoch * n : (epoch + 1) * n]) == sorted(
            key[tuple(sorted(r))] for r in targets.rows.tolist()
        )


def test_held_out_queries_share_nothing_with_the_rest():
    targets = targets_of(60)
    training, held_out = targets.split(0.3, seed=1)
    assert len(training) + len(held_out) == 60
    assert len(np.unique(held_out.query)) == 2
    assert not np.intersect1d(training.query, held_out.query).size
