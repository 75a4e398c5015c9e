"""Stage 2: rows a second, memory, bytes a row, what the pipeline adds to the engine's time, and a second worker.

    python -m benchmarks.synthesis RUN [--rows 10000 2000000] [--engine [64]] [--nodes [64]] [--queries 200]
        [--samples 128] [--pace 0] [--set A.B=C]

RUN is a run directory whose stage 1 is done. Answers of its policy are recorded once, `--samples` to each of
`--queries` training queries, in RUN/recorded.parquet, and then replayed through the same Ray Data job in place of the
engine: parsing, encoding, search, reward, composition and writing, for every number of `--rows`, each in a Ray session
of its own. Rates are those between the first shard that stands and the last; peak memory is of this process and all of
Ray's; with a `--pace` a short run too lasts until all of them have loaded. With `--engine` that many queries are
sampled by a warm engine alone, shard by shard and in one call, and by the whole job, in shards of 1,024 answers. With
`--nodes` by one engine of one thread on one Ray node, and by two on two nodes of this machine. `repeated` is how often
an answer is replayed. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.cluster_utils import Cluster

from benchmarks.environment import environment
from cluster.rollout_actor import start_rollout
from cluster.session import ENVIRONMENT, session, start
from cluster.synthesis import ShardDone, ShardTask, stream_shards
from jobs.footprint import PeakMemory
from r4t.catalog.dataset import Dataset, load_dataset
from r4t.config import Config, load_config
from r4t.lineage import atomic_path
from r4t.sets.slices import slices
from r4t.sets.store import shard_files, shard_name
from r4t.types import Ints

RECORDED = "recorded.parquet"
WARM = 4  # shards that are not timed where an engine samples: while the scorers load, it works ahead of them
SMALL_SHARD = 1024  # answers, where an engine samples them: a shard of the default size would take minutes


class Replay:
    """Stands in for an engine: the recorded answers, given to other queries too where more are asked for."""

    def __init__(self, recorded: Path, pace: float = 0.0) -> None:
        self.pace = pace
        table = pq.read_table(recorded)
        _, first = np.unique(table["query"].to_numpy(), return_index=True)
        texts, finished = table["text"].to_pylist(), table["finished"].to_pylist()
        stops = [*sorted(first)[1:], len(texts)]
        self.answers = [(texts[a:b], finished[a:b]) for a, b in zip(sorted(first), stops, strict=True)]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        row.pop("texts")
        picked = [self.answers[query % len(self.answers)] for query in row["queries"]]
        asked = slice(row["first"], row["first"] + row["samples"])
        time.sleep(self.pace)
        return row | {
            "text": [text for texts, _ in picked for text in texts[asked]],
            "finished": [whole for _, finished in picked for whole in finished[asked]],
            "seconds_sampling": time.perf_counter() - started,
        }


def record(run: Path, config: Config, dataset: Dataset, rows: Ints, samples: int) -> None:
    """Samples the answers that are replayed, a few queries at a time."""
    engine = start_rollout(config, run / "folm" / "policy")
    tables = []
    for first in range(0, len(rows), 8):
        asked = [(int(row), dataset.queries[row].text) for row in rows[first : first + 8]]
        sampling = {"samples": samples, "temperature": config.sets.temperature, "seed": config.seed}
        answers = ray.get(engine.generate.remote(asked, **sampling, logprobs=False))
        columns = {name: [getattr(a, name) for a in answers] for name in ("query", "sample", "text", "finished")}
        tables.append(pa.table(columns))
        print(f"recorded {first + len(asked)}/{len(rows)} queries", file=sys.stderr)
    ray.kill(engine)
    with atomic_path(run / RECORDED) as temporary:
        pq.write_table(pa.concat_tables(tables), temporary, compression="zstd")


def tasks(run: Path, config: Config, dataset: Dataset, rows: Ints, out: Path) -> list[ShardTask]:
    """The shards of the queries at `rows`, which may repeat, in `out`."""
    return [
        ShardTask(
            path=str(out / shard_name(number)),
            policy=str(run / "folm" / "policy"),
            version=1,
            queries=part.queries,
            texts=tuple(dataset.queries[row].text for row in part.queries),
            first=part.first,
            samples=part.samples,
            lineage="{}",
        )
        for number, part in enumerate(slices(rows, config.sets))
    ]


def streamed(shards: Iterator[ShardDone], warm: int = 1) -> dict[str, Any]:
    """The stream's rates after its first `warm` shards, which wait for actors to start."""
    started, done, at = time.perf_counter(), [], []
    for shard in shards:
        done.append(shard)
        at.append(time.perf_counter())
    rows = sum(shard.answers for shard in done)
    timed, seconds = sum(shard.answers for shard in done[warm:]), at[-1] - at[warm - 1]
    return {
        "rows": rows,
        "shards": len(done),
        "readable": sum(shard.parsed.statuses[0] for shard in done) / rows,
        "seconds": time.perf_counter() - started,
        "seconds_timed": seconds,
        "rows_per_second": timed / seconds if timed else None,
        "scoring_seconds_per_1000_rows": 1000 * sum(shard.seconds_scoring for shard in done) / rows,
    }


def size(out: Path) -> dict[str, float]:
    """Bytes a row of everything that was written, and of the two files."""
    shards = [shard_files(path) for path in sorted(out.glob("shard-*.parquet")) if path.name.count(".") == 1]
    rows = sum(pq.read_metadata(files[-1]).num_rows for files in shards)
    names = ("bytes_per_row_subqueries", "bytes_per_row_answers")
    parts = [sum(files[i].stat().st_size for files in shards) / rows for i in (0, -1)]
    subqueries = sum(pq.read_metadata(files[0]).num_rows for files in shards)
    return {
        "bytes_per_row": sum(parts),
        **dict(zip(names, parts, strict=True)),
        "distinct_subqueries_per_row": subqueries / rows,
    }


def replayed(run: Path, config: Config, dataset: Dataset, count: int, pace: float) -> dict[str, Any]:
    """`count` rows through the job without an engine."""
    queries = np.resize(dataset.split("train"), -(-count // config.sets.samples_per_query))
    with tempfile.TemporaryDirectory() as folder, session(config, "local"), PeakMemory(every=0.2) as memory:
        made = tasks(run, config, dataset, queries, Path(folder))
        found = streamed(stream_shards(made, config, run / "prepare", Replay, (run / RECORDED, pace)))
        written = size(Path(folder))
    repeated = found["rows"] / pq.read_metadata(run / RECORDED).num_rows
    return {"what": "replay", "repeated": repeated} | found | written | {"peak_gib": memory.bytes / 2**30}


def engine(run: Path, config: Config, dataset: Dataset, rows: Ints) -> dict[str, Any]:
    """A warm engine's own time for all shards but the first `WARM`, one by one and in one call, and the job's."""
    config = config.model_copy(update={"rollout": config.rollout.model_copy(update={"workers": 1})})
    with tempfile.TemporaryDirectory() as folder, session(config, "local"):
        made = tasks(run, config, dataset, rows, Path(folder))
        if len(made) < 2 * WARM:
            raise SystemExit(f"--engine needs {2 * WARM} shards or more: lower sets.shard_answers")
        asked = [[(q, t) for q, t in zip(one.queries, one.texts, strict=True)] for one in made]
        one_by_one, at_once = own_seconds(run, config, asked)
        found = streamed(stream_shards(made, config, run / "prepare"), WARM)
    answers = sum(len(one.queries) * one.samples for one in made[WARM:])
    seconds = found["seconds_timed"]
    return found | {
        "what": "engine",
        "engine_seconds": one_by_one,
        "engine_seconds_one_call": at_once,
        "engine_rows_per_second": answers / one_by_one,
        "pipeline_adds": seconds / one_by_one - 1,
        "pipeline_adds_to_one_call": seconds / at_once - 1,
    }


def own_seconds(run: Path, config: Config, asked: list[list[tuple[int, str]]]) -> tuple[float, float]:
    """Seconds of an engine that the first shards have warmed: the rest shard after shard, and all at once."""
    actor = start_rollout(config, run / "folm" / "policy")
    sampling = {
        "samples": config.sets.samples_per_query,
        "temperature": config.sets.temperature,
        "seed": config.seed,
        "logprobs": False,
    }
    for call in asked[:WARM]:
        ray.get(actor.generate.remote(call, **sampling))
    seconds = []
    for calls in (asked[WARM:], [[pair for one in asked[WARM:] for pair in one]]):
        started = time.perf_counter()
        for call in calls:
            ray.get(actor.generate.remote(call, **sampling))
        seconds.append(time.perf_counter() - started)
    ray.kill(actor)
    return seconds[0], seconds[1]


@contextmanager
def nodes(count: int) -> Iterator[str]:
    """The address of a cluster of `count` Ray nodes of one CPU each on this machine."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "env_vars": ENVIRONMENT})
    try:
        for _ in range(count - 1):
            cluster.add_node(num_cpus=1, env_vars=ENVIRONMENT)
        yield cluster.address
    finally:
        cluster.shutdown()


def scaling(run: Path, config: Config, dataset: Dataset, rows: Ints) -> list[dict[str, Any]]:
    """The same shards by one engine of one thread on one node, and by two on two."""
    found = []
    for count in (1, 2):
        rollout = config.rollout.model_copy(update={"workers": count, "threads": 1, "cpus": 0.75})
        own = config.model_copy(update={"rollout": rollout})
        with tempfile.TemporaryDirectory() as folder, nodes(count) as address:
            start(address)
            made = tasks(run, own, dataset, rows, Path(folder))
            found.append(
                {"what": "scaling", "nodes": count} | streamed(stream_shards(made, own, run / "prepare"), WARM)
            )
            ray.shutdown()
    return found


def settings(run: Path, samples: int, overrides: Sequence[str]) -> Config:
    config = load_config(run / "config.yaml", list(overrides))
    return config.model_copy(update={"sets": config.sets.model_copy(update={"samples_per_query": samples})})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 2_000_000])
    parser.add_argument("--pace", type=float, default=0.0, help="seconds that an engine takes at least for a shard")
    parser.add_argument("--engine", type=int, nargs="?", const=64, default=0, metavar="QUERIES")
    parser.add_argument("--nodes", type=int, nargs="?", const=64, default=0, metavar="QUERIES")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=C")
    a = parser.parse_args()
    run = a.run.resolve()
    config = settings(run, a.samples, a.overrides)
    dataset = load_dataset(run / "prepare")
    train = dataset.split("train")
    recorded = train[:: max(1, len(train) // a.queries)][: a.queries]
    if a.rows and not (run / RECORDED).is_file():
        with session(config, "local"):
            record(run, config, dataset, recorded, a.samples)
    results: list[dict[str, Any]] = [replayed(run, config, dataset, rows, a.pace) for rows in a.rows]
    small = config.model_copy(update={"sets": config.sets.model_copy(update={"shard_answers": SMALL_SHARD})})
    if a.engine:
        results.append(engine(run, small, dataset, train[: a.engine]))
    if a.nodes:
        results += scaling(run, small, dataset, train[: a.nodes])
    shared = {"samples_per_query": a.samples, "items": len(dataset.item_ids), "task": config.task}
    rows = [shared | result for result in results]
    print(json.dumps({"schema": 1, "name": "synthesis", "environment": environment(), "results": rows}))


if __name__ == "__main__":
    main()
