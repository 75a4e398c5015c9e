"""The reader of training sets: sets per second, and what bounds them.

    python -m benchmarks.reader [--sets 2000000] [--items 142472] [--length 12] [--dim 128] [--batch 512] [--task oar]
                                [--folder DIR] [--seconds 3]

Writes a run of random sets with the ordinary shard writer, opens it as a trainer does, and draws batches of float32
[batch, L, d] with their query vectors: by one process on one thread, on two, and by two processes, whose batches stay
with them, as each rank's do. The target is five times what the 53.9M-parameter trainer consumes in 5 ms at batch 512.
Alternatives to the gather and the cost of each part of a draw say where the time goes; `copy` is what the memory gives:
as many bytes, moved in one piece. Prints JSON; rates are medians over pieces of the time, or of processor
seconds (`one_thread_of_cpu_time`), which say something on a busy machine too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.environment import environment
from r4t.catalog.dataset import FILES, save_dataset
from r4t.catalog.encoders import unit_rows
from r4t.catalog.source import Catalog, Item
from r4t.config import Config, parse_config
from r4t.lineage import write_manifest
from r4t.sets import ShardColumns, TargetSets, open_tables, write_shard
from r4t.sets.order import epoch_order, row_order
from r4t.types import Floats, Query

TARGET = 5 * 512 / 0.005
SHARD = 32_768
PERF = time.perf_counter
PIECES = 5  # of the measured time, of which the median counts


def random_units(rng: np.random.Generator, n: int, dim: int) -> Floats:
    return unit_rows(rng.standard_normal((n, dim), dtype=np.float32), what="random vectors")


def write_run(folder: Path, a: argparse.Namespace) -> None:
    """Folders `prepare` and `sets` of random sets, 128 to a query; WSCR sets have ten sub-queries of their own."""
    rng = np.random.default_rng(0)
    queries = max(a.sets // 128, 2)
    catalog = Catalog(
        items=[Item(item_id=str(i), text="", name="") for i in range(a.items)],
        queries=[Query(query_id=str(q), text=str(q), split="train") for q in range(queries)],
        dropped={},
    )
    prepare = folder / "prepare"
    save_dataset(prepare, catalog, random_units(rng, a.items, a.dim), random_units(rng, queries, a.dim))
    write_manifest(prepare, stage="prepare", config={}, inputs={}, files=FILES, metrics={})
    for number, start in enumerate(range(0, a.sets, SHARD)):
        answers = np.arange(start, min(start + SHARD, a.sets))
        query = np.minimum(answers // 128, queries - 1)
        texts = 10 * len(answers) if a.task == "wscr" else 0
        shard = ShardColumns(
            query=query,
            sample=answers % 128,
            rows=rng.integers(0, texts or a.items, (len(answers), a.length)),
            subqueries=np.zeros((len(answers), 1), np.int64),
            reward=rng.random(len(answers), dtype=np.float32),
            valid=np.ones(len(answers), bool),
            terms={},
            texts=tuple(map(str, range(texts))),
            vectors=random_units(rng, texts, a.dim) if texts else None,
            status=np.zeros(len(answers), np.int8),
            policy_version=np.ones(len(answers), np.int64),
            query_id=tuple(map(str, query.tolist())),
        )
        write_shard(folder / "sets" / f"shard-{number:05d}.parquet", shard, lineage={})


def rate(work: Callable[[int], Any], per_call: int, seconds: float, clock: Callable[[], float] = PERF) -> float:
    """Units per second of `work(step)`, each call of which does `per_call`: the median of PIECES pieces of time."""
    step, rates = 0, []
    for piece in range(PIECES + 1):
        started, calls = clock(), 0
        while (spent := clock() - started) < seconds / PIECES:
            work(step)
            step, calls = step + 1, calls + 1
        if piece:  # the first one warms up
            rates.append(calls * per_call / spent)
    return statistics.median(rates)


def drawing(targets: TargetSets, batch: int, rank: int = 0, world: int = 1) -> Callable[[int], Any]:
    return lambda step: targets.draw(step, batch=batch, seed=0, rank=rank, world=world)


def worker(place: tuple[int, int], folder: Path, config: Config, a: argparse.Namespace, out: Any) -> None:
    """One of several processes that draw side by side."""
    torch.set_num_threads(1)
    targets = open_tables(folder / "sets", folder / "prepare", config).training
    work = drawing(targets, a.batch, *place)
    work(0)
    out.put("ready")
    out.put(rate(work, a.batch, a.seconds))


def by_processes(count: int, folder: Path, config: Config, a: argparse.Namespace) -> float:
    """Sum of the rates of `count` processes."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [
        context.Process(target=worker, args=((rank, count), folder, config, a, queue), daemon=True)
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    found = [queue.get(timeout=600) for _ in range(2 * count)]
    for process in processes:
        process.join()
    return float(sum(value for value in found if value != "ready"))


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def parts(targets: TargetSets, a: argparse.Namespace) -> dict[str, Callable[[int], Any]]:
    """Pieces of a draw, and other ways to gather the same rows."""
    n, length, batch = len(targets), a.length, a.batch
    rng = np.random.default_rng(1)
    chosen = [rng.integers(0, n, batch) for _ in range(256)]
    table = np.ascontiguousarray(targets.table[: a.items], dtype=np.float32)
    rows = [targets.rows[c] % len(table) for c in chosen]
    places, epochs = np.arange(batch), np.zeros(batch, np.int64)
    half = torch.from_numpy(table.astype(np.float16))
    whole, bytes_ = torch.from_numpy(table), np.round(table * 127).astype(np.int8)
    eighth = torch.from_numpy(bytes_)
    kept, source, copy = (np.empty((batch * length, a.dim), np.float32) for _ in range(3))
    source[:] = 1

    def flat(step: int) -> torch.Tensor:
        return torch.from_numpy(rows[step % 256].reshape(-1))

    return {
        "epoch_order": lambda step: epoch_order(places + step * batch % (n - batch), n, 0, epochs),
        "row_order": lambda step: row_order(chosen[step % 256], length, 0, epochs),
        "ids": lambda step: targets.rows[chosen[step % 256]],
        "gather": lambda step: targets.vectors(rows[step % 256]),
        "gather_numpy": lambda step: table[rows[step % 256]],
        "gather_numpy_reused": lambda step: np.take(table, rows[step % 256].reshape(-1), axis=0, out=kept, mode="clip"),
        "gather_torch": lambda step: torch.index_select(whole, 0, flat(step)),
        "gather_float16": lambda step: torch.index_select(half, 0, flat(step)),
        "gather_float16_widened": lambda step: torch.index_select(half, 0, flat(step)).float(),
        "gather_int8_widened": lambda step: torch.index_select(eighth, 0, flat(step)).float().mul_(1 / 127),
        "copy": lambda _: np.copyto(copy, source),
    }


def measure(folder: Path, a: argparse.Namespace) -> dict[str, Any]:
    config = parse_config({"task": a.task, "objective": {"kind": "coverage"} if a.task == "wscr" else {}})
    started = time.perf_counter()
    open_tables(folder / "sets", folder / "prepare", config)
    built = time.perf_counter() - started
    started = time.perf_counter()
    targets = open_tables(folder / "sets", folder / "prepare", config).training
    opened = time.perf_counter() - started
    with threads(1):
        one = rate(drawing(targets, a.batch), a.batch, a.seconds)
        cpu = rate(drawing(targets, a.batch), a.batch, a.seconds / 3, time.process_time)
        pieces = {name: rate(work, a.batch, a.seconds / 3) for name, work in parts(targets, a).items()}
    with threads(2):
        two_threads = rate(drawing(targets, a.batch), a.batch, a.seconds)
    two_processes = by_processes(2, folder, config, a)
    best = max(two_threads, two_processes)
    return {
        "task": a.task,
        "sets": a.sets,
        "items": a.items,
        "length": a.length,
        "dim": a.dim,
        "batch": a.batch,
        "seconds_to_build_tables": built,
        "seconds_to_open_tables": opened,
        "sets_per_second": {
            "one_thread": one,
            "one_thread_of_cpu_time": cpu,
            "two_threads": two_threads,
            "two_processes": two_processes,
        },
        "target": TARGET,
        "times_the_target": best / TARGET,
        "gigabytes_per_second_out": best * a.length * a.dim * 4 / 1e9,
        "parts_one_thread": pieces,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=2_000_000)
    parser.add_argument("--items", type=int, default=142_472)
    parser.add_argument("--length", type=int, default=12)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--task", choices=("oar", "wscr"), default="oar")
    parser.add_argument("--folder", type=Path, help="keeps the random run here, and takes the one that stands there")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = a.folder or Path(temporary)
        if not (folder / "sets").is_dir():
            write_run(folder, a)
        result = measure(folder, a)
    print(json.dumps({"schema": 1, "name": "reader", "environment": environment(), "results": [result]}))


if __name__ == "__main__":
    main()
