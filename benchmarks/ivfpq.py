"""Ten million items in a product-quantised inverted file, built in pieces, searched from memory-mapped files.

    python -m benchmarks.ivfpq --work DIR [--items 10000000] [--queries 1000] [--lists 4096] [--search-only]

The items are made up, and resemble text embeddings in three respects: they lie in clusters of about a hundred (100,000
clusters at 10 million); neighbours in a cluster have a cosine near .65, since the noise is .73 times as
long as the centre; and the space is anisotropic, with a variance that falls as the inverse of a dimension's number, and
a direction that all items share. Queries are further draws of the same law, in no index. A piece of the items is in
memory at a time; as float16 they go to DIR (2.6 GB at 10 million), from where candidates are ranked again. The truth is
exact search in float32 over the items before they are rounded. Prints JSON; memory is the peak of the whole process.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from benchmarks.environment import environment
from cluster.devices import cores
from r4t.catalog.index import AnnIndex
from r4t.catalog.index.ann import BITS
from r4t.config import Index as Settings
from r4t.types import Floats, Ints

DIM = 128
IN_CLUSTER = 100  # items, on average
NOISE = 0.73  # length of an item's own part, in lengths of its cluster's centre
SHARED = 0.3  # of the direction that all items share, likewise
PIECE = 200_000  # items in memory at a time
DEPTH = 10
TRAINING = 64  # items per list to train on
LIMIT_GIB = 8.0
BILLION = 1_000_000_000


class Mixture:
    """The law of the items: a draw depends on its seed alone."""

    def __init__(self, clusters: int) -> None:
        rng = np.random.default_rng(0)
        self.spread = (1.0 / np.sqrt(np.arange(1, DIM + 1))).astype(np.float32)
        self.spread /= np.linalg.norm(self.spread)
        shared = rng.standard_normal(DIM, dtype=np.float32)
        self.centres = rng.standard_normal((clusters, DIM), dtype=np.float32) * self.spread
        self.centres += SHARED * shared / np.linalg.norm(shared)

    def draw(self, number: int, seed: int) -> Floats:
        """[number, DIM] unit rows."""
        rng = np.random.default_rng([1, seed])
        rows = rng.standard_normal((number, DIM), dtype=np.float32)
        rows *= NOISE * self.spread
        rows += self.centres[rng.integers(len(self.centres), size=number)]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


def pieces(mixture: Mixture, items: int) -> Iterator[tuple[int, Floats]]:
    """First row and vectors of each piece of the items."""
    for number, first in enumerate(range(0, items, PIECE)):
        yield first, mixture.draw(min(PIECE, items - first), seed=number + 1)


def build(mixture: Mixture, items: int, lists: int, pq_bytes: int, folder: Path) -> dict[str, float]:
    """Writes `index.faiss` and `vectors.f16` to `folder`; returns the seconds of each part of it."""
    seconds = {"make": 0.0, "train": 0.0, "add": 0.0, "write": 0.0}

    def lap(part: str, since: float) -> float:
        now = time.perf_counter()
        seconds[part] += now - since
        return now

    metric = faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexIVFPQ(faiss.IndexFlatIP(DIM), DIM, lists, pq_bytes, BITS, metric)
    index.cp.spherical = True
    started = time.perf_counter()
    sample = mixture.draw(min(items, max(lists * TRAINING, 1 << 16)), seed=0)
    started = lap("make", started)
    index.train(sample)
    del sample
    started = lap("train", started)
    with (folder / "vectors.f16").open("wb") as file:
        for _, vectors in pieces(mixture, items):
            started = lap("make", started)
            index.add(vectors)
            started = lap("add", started)
            file.write(vectors.astype(np.float16).data)
            started = lap("write", started)
    faiss.write_index(index, str(folder / "index.faiss"))
    lap("write", started)
    return seconds


def truth(mixture: Mixture, items: int, queries: Floats) -> Ints:
    """[m, DEPTH] rows of the nearest items, exactly."""
    asked = torch.from_numpy(queries)
    best = torch.full((len(queries), DEPTH), -math.inf)
    rows = torch.full((len(queries), DEPTH), -1)
    for first, vectors in pieces(mixture, items):
        for start in range(0, len(vectors), 20_000):
            scores, found = (asked @ torch.from_numpy(vectors[start : start + 20_000]).t()).topk(DEPTH, dim=1)
            best, order = torch.cat([best, scores], dim=1).topk(DEPTH, dim=1)
            rows = torch.cat([rows, found + first + start], dim=1).gather(1, order)
    return rows.numpy()


def searches(folder: Path, items: int, queries: Floats, nearest: Ints) -> Iterator[dict[str, Any]]:
    """Recall and speed of the memory-mapped index for several settings."""
    index = faiss.read_index(str(folder / "index.faiss"), faiss.IO_FLAG_MMAP_IFC)
    vectors = np.memmap(folder / "vectors.f16", dtype=np.float16, mode="r", shape=(items, DIM))
    for probes in (8, 16, 32, 64, 128, 256, 512):
        for rerank in (1, 4, 10, 20):
            settings = Settings(kind="ivf_pq", probes=probes, rerank=rerank)
            found = AnnIndex(vectors, index, settings, writable=False)
            started = time.perf_counter()
            _, rows = found.search(queries, DEPTH)
            seconds = time.perf_counter() - started
            recall = float((rows[:, :, None] == nearest[:, None, :]).any(axis=1).mean())
            yield {"probes": probes, "rerank": rerank, "recall": recall, "queries_per_second": len(queries) / seconds}


def a_billion(items: int, index_bytes: int, build_seconds: float) -> dict[str, Any]:
    """COMPUTED from this build, not measured: as many shards of this size as hold a billion items."""
    shards = math.ceil(BILLION / items)
    return {
        "computed": True,
        "items": BILLION,
        "shards": shards,
        "index_gib": index_bytes / items * BILLION / 2**30,
        "float16_vectors_gib": 2 * DIM * BILLION / 2**30,
        "build_hours_one_machine": build_seconds * shards / 3600,
        "build_hours_a_machine_per_shard": build_seconds / 3600,
    }


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the files, 300 bytes an item")
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--lists", type=int, help="default: 4096, or 4 x the root of the items where that is less")
    parser.add_argument("--pq-bytes", type=int, default=32)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--search-only", action="store_true", help="search what an earlier call with --work built")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    faiss.omp_set_num_threads(a.threads)
    a.work.mkdir(parents=True, exist_ok=True)
    lists = a.lists or min(4096, math.ceil(4 * math.sqrt(a.items)))
    mixture = Mixture(max(1, a.items // IN_CLUSTER))
    result: dict[str, Any] = {
        "items": a.items,
        "dim": DIM,
        "lists": lists,
        "pq_bytes": a.pq_bytes,
        "threads": a.threads,
    }
    if not a.search_only:
        started = time.perf_counter()
        seconds = build(mixture, a.items, lists, a.pq_bytes, a.work)
        total = time.perf_counter() - started
        peak = _peak_gib()
        result |= {
            "build_seconds": total,
            "build_seconds_by_part": seconds,
            "build_peak_gib": peak,
            "within_8_gib": peak <= LIMIT_GIB,
            "billion": a_billion(a.items, (a.work / "index.faiss").stat().st_size, total),
        }
    started = time.perf_counter()
    queries = mixture.draw(a.queries, seed=BILLION)
    nearest = truth(mixture, a.items, queries)
    result |= {
        "index_bytes": (a.work / "index.faiss").stat().st_size,
        "vectors_bytes": (a.work / "vectors.f16").stat().st_size,
        "truth_seconds": time.perf_counter() - started,
        "searches": list(searches(a.work, a.items, queries, nearest)),
        "peak_gib": _peak_gib(),
    }
    print(json.dumps({"schema": 1, "name": "ivfpq", "environment": environment(), "results": [result]}))


if __name__ == "__main__":
    main()
