"""Shards of the index in actors of their own: the same results as one index, also after one died or stood still."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray

from cluster.index_shards import remote_index, shard_roll, start_shards
from cluster.roles import place
from cluster.scorer import RewardScorer
from cluster.session import session
from jobs import prepare
from jobs.run import Run
from r4t.catalog.dataset import load_dataset
from r4t.catalog.index import ExactIndex
from r4t.config import parse_config
from r4t.fanout import format_answer

pytestmark = pytest.mark.slow


def test_shards_in_actors_find_what_one_index_finds(tmp_path: Path) -> None:
    raw = {"encoder": {"dim": 64}, "data": {"n_queries": 100}, "fanout": {"k": 2}, "rollout": {"cpus": 0.25}}
    raw |= {"index": {"shards": 3}, "scorer": {"threads": 1, "cpus": 0.125}, "cluster": {"call_timeout": 60}}
    config = parse_config(raw)
    run = Run(tmp_path, config)
    prepare.main(config, run)
    run.close()
    folder = tmp_path / "prepare"
    dataset = load_dataset(folder)
    whole = ExactIndex(dataset.item_vectors).search(dataset.query_vectors, 10)
    told: list[str] = []
    with session(config, "local"), shard_roll(config, told.append) as roll:
        placement = place(config)
        shards = start_shards(placement, folder, config, roll)
        index = remote_index(shards, len(dataset.item_ids), config)
        for found, expected in zip(index.search(dataset.query_vectors, 10), whole, strict=True):
            np.testing.assert_array_equal(found, expected)
        ray.kill(shards[1], no_restart=False)
        for found, expected in zip(index.search(dataset.query_vectors, 10), whole, strict=True):
            np.testing.assert_array_equal(found, expected)
        answers = [format_answer(["warm soup", "green salad"]), "no answer"]
        spread = RewardScorer(folder, config, shards).score([0, 1], answers)
        alone = RewardScorer(folder, config).score([0, 1], answers)
        np.testing.assert_array_equal(spread.rewards, alone.rewards)
        np.testing.assert_array_equal(spread.items, alone.items)
        assert told == []
        last = [one for one in psutil.Process().children(recursive=True) if _is_shard(one)][-1]
        last.send_signal(signal.SIGSTOP)
        for found, expected in zip(index.search(dataset.query_vectors, 10), whole, strict=True):
            np.testing.assert_array_equal(found, expected)
        (line,) = told
        assert re.match(rf"index shard \d \(process {last.pid} on .*\) was not heard of for 30 s \(0.5 x ", line), line
        placement.release()


def _is_shard(process: psutil.Process) -> bool:
    return " ".join(process.cmdline()).startswith("ray::ShardActor")
