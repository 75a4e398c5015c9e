from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sets_fixtures import DIM, ROWS, invalid, record, small_dataset, unit, write

from r4t.config import Config
from r4t.errors import UserError
from r4t.sets import TargetSets, load_targets


def config(**sets: float) -> Config:
    return Config.model_validate({"sets": sets})


def targets_of(n: int) -> TargetSets:
    dataset = small_dataset()
    rng = np.random.default_rng(0)
    return TargetSets(
        query=(np.arange(n) % 6).astype(np.int32),
        rows=rng.integers(0, 30, (n, ROWS), dtype=np.int32),
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


@settings(max_examples=60)
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


@settings(max_examples=60)
@given(st.integers(2, 40), st.sampled_from([1, 2, 3, 4, 6]), st.integers(0, 5))
def test_the_batch_of_all_ranks_is_the_same_for_any_number_of_them(n: int, world: int, step: int):
    targets, together = targets_of(n), 12
    whole = targets.draw(step, batch=together, seed=3)
    shares = [targets.draw(step, batch=together // world, seed=3, rank=rank, world=world) for rank in range(world)]
    for side in range(2):
        assert np.concatenate([share[side] for share in shares]).tobytes() == whole[side].tobytes()


def test_an_epoch_gives_every_set_rows_in_an_order_of_its_own_at_every_draw():
    targets = targets_of(50)
    (chosen, rows), (again, later) = (targets.drawn(np.arange(50) + 50 * epoch, 0) for epoch in (0, 1))
    assert np.array_equal(np.sort(chosen), np.arange(50))
    assert np.array_equal(np.sort(rows, axis=1), np.sort(targets.rows[chosen], axis=1))
    assert not np.array_equal(chosen, again)
    first, second = rows[chosen.argsort()], later[again.argsort()]
    assert np.mean((first != second).any(axis=1)) > 0.8  # a set keeps its order in one of 24 draws


def test_what_the_filters_removed_is_counted(tmp_path: Path):
    records = [record(0, 0, reward=0.9), record(0, 1, reward=0.8, rows=record(0, 0).rows), record(1, 0, reward=0.1)]
    write(tmp_path, 0, [*records, invalid(1, 1)])
    targets = load_targets(tmp_path, small_dataset(), config(min_reward=0.5, near_duplicate=1.0))
    assert targets.query.tolist() == [0]
    assert targets.removed == {"unparsable": 1, "min_reward": 1, "near_duplicate": 1}
    assert load_targets(tmp_path, small_dataset(), config()).removed == {"unparsable": 1}


@pytest.mark.parametrize(
    ("part", "left"), [("", 0.5), ("", 0.0), ("subqueries.", 0.5), ("subqueries.", 0.0), ("subqueries.", None)]
)
def test_a_cut_or_lost_shard_is_named(tmp_path: Path, part: str, left: float | None):
    for number in range(3):
        write(tmp_path, number, [record(number, s) for s in range(4)])
    target = tmp_path / f"shard-00001.{part}parquet"
    content = target.read_bytes()
    target.unlink()
    if left is not None:
        target.write_bytes(content[: int(len(content) * left)])
    with pytest.raises(UserError, match=r"shard-00001\.parquet is damaged .*--stage sets") as caught:
        load_targets(tmp_path, small_dataset(), config())
    assert "\n" not in str(caught.value)


def test_sets_of_another_catalogue_or_encoder_are_refused(tmp_path: Path):
    write(tmp_path / "items", 0, [record(0, 0, rows=(1, 2, 3, 30))])
    with pytest.raises(UserError, match=r"items that do not exist .*another catalogue"):
        load_targets(tmp_path / "items", small_dataset(), config())
    write(tmp_path / "queries", 0, [record(10, 0)])
    with pytest.raises(UserError, match=r"queries that do not exist .*another catalogue"):
        load_targets(tmp_path / "queries", small_dataset(), config())
    other = unit(np.random.default_rng(0), 3, DIM + 1)
    write(tmp_path / "width", 0, [record(0, 0, rows=(0, 1, 2, 0))], other)
    with pytest.raises(UserError, match=r"9 columns.*have 8.*another encoder"):
        load_targets(tmp_path / "width", small_dataset(), config())
    write(tmp_path / "long", 0, [record(0, 0, rows=(0, 1, 2, 0))], other[:, :DIM] * 3)
    with pytest.raises(UserError, match="not of unit length"):
        load_targets(tmp_path / "long", small_dataset(), config())


def test_shards_of_two_kinds_are_refused(tmp_path: Path):
    write(tmp_path, 0, [record(0, 0)])
    write(tmp_path, 1, [record(1, 0, rows=(0, 1, 2, 0))], unit(np.random.default_rng(2), 3, DIM))
    with pytest.raises(UserError, match="different runs"):
        load_targets(tmp_path, small_dataset(), config())


def test_a_cap_of_items_needs_items(tmp_path: Path):
    write(tmp_path, 0, [record(0, 0, rows=(0, 1, 2, 0))], unit(np.random.default_rng(2), 3, DIM))
    with pytest.raises(UserError, match=r"sets\.item_cap"):
        load_targets(tmp_path, small_dataset(), config(item_cap=3))
