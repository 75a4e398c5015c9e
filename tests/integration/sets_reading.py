"""Training sets of some size over random vectors, and a process that reads them; for tests of shared tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from r4t.catalog.dataset import FILES, save_dataset
from r4t.catalog.encoders import unit_rows
from r4t.catalog.source import Catalog, Item
from r4t.config import Config
from r4t.lineage import write_manifest
from r4t.sets import ShardColumns, write_shard
from r4t.types import Query

QUERIES, LENGTH = 40, 12

# Opens the tables, goes through an epoch and says so; then lives until its input closes.
READER = """
import sys
from pathlib import Path
import numpy as np
from r4t.config import load_config
from r4t.sets.tables import open_tables

run = Path(sys.argv[1])
opened = open_tables(run / "sets", run / "prepare", load_config(run / "config.yaml"))
total = 0.0
for start in range(0, len(opened.targets), 4096):
    sets, queries = opened.targets.gather(np.arange(start, min(start + 4096, len(opened.targets))))
    total += float(sets.sum()) + float(queries.sum())
print(opened.n_training, f"{total:.3f}", flush=True)
sys.stdin.read()
"""


def write_run(
    folder: Path,
    config: Config,
    *,
    sets: int,
    items: int,
    dim: int,
    shards: int = 2,
    lineage: dict[str, str] | None = None,
) -> None:
    """Folders `prepare` and `sets` of a run: `sets` random sets in each of `shards` shards."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    objective = "objective: {kind: coverage}\n" if config.task == "wscr" else ""
    (folder / "config.yaml").write_text(f"task: {config.task}\n{objective}")
    catalog = Catalog(
        items=[Item(item_id=f"i{i}", text=f"item {i}", name=f"item {i}") for i in range(items)],
        queries=[Query(query_id=f"q{q}", text=f"query {q}", split="train") for q in range(QUERIES)],
        dropped={},
    )
    random = [unit_rows(rng.standard_normal((n, dim), dtype=np.float32), what="random") for n in (items, QUERIES)]
    save_dataset(folder / "prepare", catalog, *random)
    write_manifest(folder / "prepare", stage="prepare", config={}, inputs={}, files=FILES, metrics={})
    for number in range(shards):
        texts = items if config.task == "wscr" else 0
        vectors = unit_rows(rng.standard_normal((texts, dim), dtype=np.float32), what="random") if texts else None
        answers = np.arange(sets)
        shard = ShardColumns(
            query=answers % QUERIES,
            sample=answers,
            rows=rng.integers(0, items, (sets, LENGTH)),
            subqueries=np.zeros((sets, 1), np.int64),
            reward=rng.random(sets, dtype=np.float32),
            valid=np.ones(sets, bool),
            terms={},
            texts=tuple(f"text {i}" for i in range(texts)),
            vectors=vectors,
            status=np.zeros(sets, np.int8),
            policy_version=np.ones(sets, np.int64),
            query_id=tuple(f"q{i % QUERIES}" for i in range(sets)),
        )
        write_shard(folder / "sets" / f"shard-{number:05d}.parquet", shard, lineage=lineage or {})


def start_reader(run: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", READER, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def mapped(pid: int, folder: Path) -> dict[str, int]:
    """Bytes that a process holds of the files below `folder`: resident, its proportional share, and its alone."""
    total = {"Rss": 0, "Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in total:
            total[name] += inside * int(value.split()[0]) * 1024
        elif "-" in name.split(" ")[0]:
            inside = str(folder) in line
    return total
