"""Statistics of training sets against counting by hand, and their picture."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sets_fixtures import DIM, SetRecord, invalid, record, small_dataset, unit, write

from r4t.errors import UserError
from r4t.sets.chart import draw_stats
from r4t.sets.stats import histogram, set_stats


def stats_of(folder: Path) -> dict:
    vectors = small_dataset().item_vectors
    return set_stats(folder, small_dataset(), lambda texts: (texts @ vectors.T).argmax(axis=1))


def some(rng: np.random.Generator, n: int) -> list[SetRecord]:
    """Sets over few items, so that they repeat, within a set and between sets."""
    return [
        invalid(i % 6, i) if i % 7 == 3 else record(i % 6, i, rows=tuple(rng.integers(0, 3, 4).tolist()))
        for i in range(n)
    ]


def test_counts_are_those_of_counting_by_hand(tmp_path: Path):
    rng = np.random.default_rng(0)
    records = [some(rng, 40), [*some(rng, 23), record(0, 99, rows=(9, 9, 9, 9))]]
    for number, part in enumerate(records):
        write(tmp_path, number, part)
    every = [one for part in records for one in part]
    valid = [one for one in every if one.valid]
    found = stats_of(tmp_path)
    assert (found["answers"], found["sets"]) == (len(every), len(valid))
    assert found["status"] == {"ok": len(valid), "no_block": len(every) - len(valid)}
    assert found["unique_sets"] == len({frozenset(one.rows) for one in valid}) < len(valid)
    assert found["queries"] == len({one.query for one in valid})
    assert found["distinct_rows_per_set"] == pytest.approx(np.mean([len(set(one.rows)) for one in valid]))
    uses = Counter(item for one in valid for item in set(one.rows))
    assert found["items"]["used"] == len(uses) == 4
    assert uses[9] == 1
    assert found["items"]["never_used"] == 26
    assert found["items"]["coverage"] == pytest.approx(4 / 30)
    assert found["items"]["sets_per_item"]["max"] == max(uses.values())
    reward = [one.reward for one in valid]
    assert found["reward"]["mean"] == pytest.approx(np.mean(reward), rel=1e-6)
    assert sum(found["reward"]["counts"]) == len(valid)
    assert set(found["terms"]) == {"diversity", "alignment"}
    alignment = [one.terms["alignment"] for one in valid]
    assert found["terms"]["alignment"]["std"] == pytest.approx(np.std(alignment), rel=1e-5)


def test_subqueries_use_the_item_they_are_nearest_to(tmp_path: Path):
    """The same three texts stand in both shards: sets of them are the same whatever the shard."""
    items = small_dataset().item_vectors
    write(tmp_path, 0, [record(0, 0, rows=(0, 1, 1, 0)), record(1, 0, rows=(2, 2, 2, 2))], items[[5, 7, 7]])
    write(tmp_path, 1, [record(2, 0, rows=(1, 0, 0, 0))], items[[5, 7, 7]])
    found = stats_of(tmp_path)
    assert found["unique_sets"] == 2
    assert found["items"]["used"] == 2
    assert found["items"]["sets_per_item"]["max"] == 3  # item 7 is behind two texts


def test_sets_of_another_encoder_or_nothing_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="run the stage 'sets'"):
        stats_of(tmp_path)
    write(tmp_path, 0, [record(0, 0, rows=(0, 1, 2, 0))], unit(np.random.default_rng(0), 3, DIM * 2))
    with pytest.raises(UserError, match="another encoder"):
        stats_of(tmp_path)


def test_histogram_of_nothing_and_of_one_value():
    assert histogram(np.array([np.nan], np.float32)) is None
    found = histogram(np.array([0.5, np.nan, 0.5], np.float32))
    assert found is not None
    assert (found["count"], found["mean"], found["std"], sum(found["counts"])) == (2, 0.5, 0.0, 2)


def test_the_picture_is_drawn(tmp_path: Path):
    write(tmp_path / "sets", 0, [record(q, s) for q in range(6) for s in range(5)])
    found = stats_of(tmp_path / "sets")
    draw_stats(tmp_path / "sets.png", "some", found)
    with Image.open(tmp_path / "sets.png") as image:
        colours = Counter(image.convert("RGB").get_flattened_data())
    assert len(colours) > 50
    assert colours[(0, 114, 178)] > 200  # the bars of the reward
    assert colours[(0, 158, 115)] > 400  # those of two terms
    with pytest.raises(UserError, match=r"\.png"):
        draw_stats(tmp_path / "sets.jpg", "some", found)


def test_sets_without_one_that_could_be_read_can_be_drawn(tmp_path: Path):
    write(tmp_path, 0, [invalid(0, 0)])
    found = stats_of(tmp_path)
    assert (found["sets"], found["reward"], found["items"]["share_of_the_top_percent"]) == (0, None, None)
    draw_stats(tmp_path / "sets.png", "none", found)
