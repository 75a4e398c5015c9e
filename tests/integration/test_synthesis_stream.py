"""The Ray Data job between answers and shards, with recorded answers in place of an engine."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from ray import cloudpickle
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from benchmarks.synthesis import RECORDED, Replay, streamed, tasks
from cluster.data_job import ending_its_schedule
from cluster.session import session
from cluster.synthesis import SHARD_TRIES, stream_shards
from jobs.run import Run
from r4t.catalog.dataset import load_dataset
from r4t.config import Config
from r4t.errors import UserError
from r4t.fanout import format_answer
from r4t.sets import read_shard
from r4t.sets.reader import shard_paths
from tests.integration.small_run import NAMES, TRAIN, make_run, settings

pytestmark = pytest.mark.slow
SAMPLES = 6
POISON = "shard-00003.parquet"


def configured(**sets: Any) -> Config:
    config = settings()
    changed = {"samples_per_query": SAMPLES, **sets}
    return config.model_copy(update={"sets": config.sets.model_copy(update=changed)})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run with recorded answers, most of them lists, and a Ray session."""
    run = make_run(tmp_path_factory.mktemp("recorded") / "run", configured())
    rng = np.random.default_rng(0)
    texts = [format_answer(rng.choice(NAMES, 5).tolist()) for _ in range(TRAIN * SAMPLES)]
    texts[3::7] = ["no list"] * len(texts[3::7])
    query, sample = np.repeat(np.arange(TRAIN), SAMPLES), np.tile(np.arange(SAMPLES), TRAIN)
    table = pa.table({"query": query, "sample": sample, "text": texts, "finished": [True] * len(texts)})
    pq.write_table(table, run.folder / RECORDED)
    with session(configured(), "local"):
        yield run


def made(run: Run, config: Config, folder: Path) -> tuple[dict[tuple[int, int], tuple[Any, ...]], dict[str, Any]]:
    """Every answer's stored line by (query, sample), and the job's counts."""
    folder.mkdir()
    dataset = load_dataset(run.folder / "prepare")
    shards = tasks(run.folder, config, dataset, dataset.split("train"), folder)
    replay = (run.folder / RECORDED,)
    counts = streamed(stream_shards(shards, config, run.folder / "prepare", Replay, replay))
    rows: dict[tuple[int, int], tuple[Any, ...]] = {}
    for path in shard_paths(folder):
        s = read_shard(path)
        for i, key in enumerate(zip(s.query.tolist(), s.sample.tolist(), strict=True)):
            assert key not in rows, "an answer stands twice"
            texts = [s.texts[place] for place in s.subqueries[i]] if s.valid[i] else []
            terms = [float(values[i]) for values in s.terms.values() if s.valid[i]]
            rows[key] = (s.query_id[i], bool(s.valid[i]), s.rows[i].tolist(), texts, float(s.reward[i]), terms)
    return rows, counts


class Poisoned(Replay):
    """Dies of one shard, whenever it gets it."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["path"].endswith(POISON):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(row)


def test_a_shard_that_kills_every_engine_ends_the_job_and_the_others_stand(recorded: Run, tmp_path: Path) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    dataset = load_dataset(recorded.folder / "prepare")
    shards = tasks(recorded.folder, configured(), dataset, dataset.split("train"), tmp_path)
    with pytest.raises(UserError, match=rf"died {SHARD_TRIES} times.*{POISON}"):
        list(stream_shards(shards, configured(), recorded.folder / "prepare", Poisoned, (recorded.folder / RECORDED,)))
    assert 0 < len(shard_paths(tmp_path)) < len(shards)
    assert POISON not in {path.name for path in shard_paths(tmp_path)}


def test_rows_depend_neither_on_the_size_of_shards_nor_on_the_number_of_workers(recorded: Run, tmp_path: Path) -> None:
    few, counts = made(recorded, configured(), tmp_path / "few")
    assert list(few) == [(q, s) for q in range(TRAIN) for s in range(SAMPLES)]
    assert (counts["rows"], counts["shards"]) == (TRAIN * SAMPLES, 6)
    assert 0.8 < counts["readable"] < 1
    config = configured(shard_answers=4, write_tensors=True)
    two = config.rollout.model_copy(update={"workers": 2, "cpus": 0.25})
    scorers = config.scorer.model_copy(update={"workers": 2})
    many, counts = made(recorded, config.model_copy(update={"rollout": two, "scorer": scorers}), tmp_path / "many")
    assert counts["shards"] == 2 * TRAIN
    assert many == few
    assert len(list((tmp_path / "many").glob("*.tensors.parquet"))) == 2 * TRAIN


@pytest.mark.usefixtures("recorded")
def test_a_job_that_is_left_early_has_no_thread_that_schedules() -> None:
    """Its rows stay in use, as the traceback of what a signal raised holds them."""

    def slow(row: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.5)
        return row

    def scheduling() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if isinstance(thread, StreamingExecutor)]

    with ending_its_schedule():
        rows = iter(ray.data.range(100, override_num_blocks=100).map(slow).iter_rows())
        next(rows)
        assert scheduling()
    assert scheduling() == []
