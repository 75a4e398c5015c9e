"""Ways to find the items nearest to a step's sub-queries, and the set terms on what is found.

    python -m benchmarks.search [--items 142472] [--fanouts 512] [--k 10] [--repeats 5] [--threads N] [--skip-ann]

Items are the texts of `benchmarks.large_catalogue`, sub-queries are different excerpts of their names, both as
wordllama vectors, made before the clock starts. `exact` is what the library does; its results are compared with the
float32 engine's, which must be the same bits. `cpu_seconds` counts the work of all threads: on a machine that other
programs share it says more than `seconds`. Prints JSON; times are the best of the repetitions.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import faiss
import numpy as np
import torch

from benchmarks.environment import environment
from benchmarks.large_catalogue import names
from cluster.devices import cores
from r4t.catalog.encoders import load_encoder
from r4t.catalog.index import ExactIndex, Index, recall
from r4t.catalog.index.ann import train
from r4t.catalog.index.contract import best_of, exact_scores
from r4t.catalog.index.exact import CPU
from r4t.catalog.index.products import FloatProducts
from r4t.config import Index as Settings
from r4t.config import parse_config
from r4t.objective.compose import score_sets
from r4t.objective.inputs import SetInputs
from r4t.objective.vendi import vendi
from r4t.types import Floats, Ints
from r4t.warmstart import excerpt

BLOCK = 1024  # items of one product
ANN: tuple[dict[str, Any], ...] = (
    {"kind": "ivf_flat", "probes": 64, "rerank": 1},
    {"kind": "ivf_flat", "probes": 128, "rerank": 1},
    {"kind": "ivf_flat", "probes": 256, "rerank": 1},
    {"kind": "hnsw", "ef": 128, "rerank": 1},  # the graph is built with this ef, and searched with each
    {"kind": "hnsw", "ef": 256, "rerank": 1},
    {"kind": "hnsw", "ef": 512, "rerank": 1},
)


class FastScan:
    """FAISS's product quantiser with 4-bit codes, and exact scores for the `rerank` x n candidates it gives."""

    def __init__(self, vectors: Floats, rerank: int) -> None:
        self.vectors, self.rerank, self.size = vectors, rerank, len(vectors)
        self.codes = faiss.IndexPQFastScan(vectors.shape[1], vectors.shape[1] // 2, 4, faiss.METRIC_INNER_PRODUCT)
        self.codes.train(vectors)
        self.codes.add(vectors)

    def search(self, queries: Floats, n: int) -> tuple[Floats, Ints]:
        _, rows = self.codes.search(queries, n * self.rerank)
        which = np.repeat(np.arange(len(queries)), rows.shape[1])
        rows = rows.reshape(-1)
        return best_of(which, exact_scores(queries, self.vectors, which, rows), rows, len(queries), n)


def timed(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Best seconds of `work` after one call that warms up, on the clock and on the processor."""
    work()
    clock, processor = [], []
    for _ in range(repeats):
        started, used = time.perf_counter(), time.process_time()
        work()
        clock.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
    return {"seconds": min(clock), "cpu_seconds": min(processor)}


def vectors(items: int, subqueries: int) -> tuple[Floats, Floats]:
    """Item vectors [items, 128] and the vectors [subqueries, 128] of different texts that a policy could write."""
    texts, rng = names(items), np.random.default_rng(1)
    asked: dict[str, None] = {}
    while len(asked) < subqueries:
        asked[excerpt(texts[int(rng.integers(len(texts)))], rng)] = None
    encoder = load_encoder("wordllama", 128)
    return encoder.encode(texts), encoder.encode(list(asked))


def products_alone(items: Floats, queries: Floats, repeats: int) -> Iterator[dict[str, Any]]:
    """The matrix products themselves, nothing selected: what each number format could reach at best."""
    left, right = torch.from_numpy(items), torch.from_numpy(queries).t().contiguous()
    formats: dict[str, tuple[torch.Tensor, torch.Tensor, Callable[..., torch.Tensor]]] = {
        "float32": (left, right, torch.mm),
        "bfloat16": (left.bfloat16(), right.bfloat16(), torch.mm),
        "int8": ((left * 127).to(torch.int8), (right * 127).to(torch.int8), torch._int_mm),
    }
    for name, (a, b, multiply) in formats.items():

        def run(a: torch.Tensor = a, b: torch.Tensor = b, multiply: Callable[..., torch.Tensor] = multiply) -> None:
            for first in range(0, len(a), BLOCK):
                multiply(a[first : first + BLOCK], b)

        yield {"name": f"product_{name}", **timed(run, repeats)}


def exact_ways(items: Floats, queries: Floats, repeats: int) -> Iterator[dict[str, Any]]:
    """FAISS's flat index as a yardstick, and the library's with each of its two engines."""
    faiss.cvar.distance_compute_blas_threshold = 20  # left alone, batches below about 1,000 go without BLAS
    flat = faiss.IndexFlatIP(items.shape[1])
    flat.add(items)
    index, wide = ExactIndex(items), ExactIndex(items)
    wide._products = FloatProducts(items[wide._members[wide._starts]], CPU)
    for n in (1, 10):
        for found, expected in zip(index.search(queries, n), wide.search(queries, n), strict=True):
            np.testing.assert_array_equal(found, expected)
        yield {"name": "faiss_flat", "n": n, **timed(lambda n=n: flat.search(queries, n), repeats)}  # type: ignore[misc]
        yield {"name": "exact_float32", "n": n, **timed(lambda n=n: wide.search(queries, n), repeats)}  # type: ignore[misc]
        yield {"name": "exact", "n": n, **timed(lambda n=n: index.search(queries, n), repeats)}  # type: ignore[misc]


def approximate_ways(items: Floats, queries: Floats, repeats: int) -> Iterator[dict[str, Any]]:
    exact = ExactIndex(items)
    built: dict[str, tuple[Any, float]] = {}
    for raw in ANN:
        settings = Settings(**raw)
        if settings.kind not in built:
            started = time.perf_counter()
            built = {settings.kind: (train(items, settings), time.perf_counter() - started)}
        index, seconds = built[settings.kind]
        index.settings = settings
        yield {"name": settings.kind, **raw, "build_seconds": seconds, **_judged(index, exact, queries, repeats)}
    for rerank in (4, 10, 40):
        started = time.perf_counter()
        index = FastScan(items, rerank)
        seconds = time.perf_counter() - started
        judged = _judged(index, exact, queries, repeats)
        yield {"name": "pq_fast_scan", "rerank": rerank, "build_seconds": seconds, **judged}


def _judged(index: Index, exact: Index, queries: Floats, repeats: int) -> dict[str, Any]:
    return {"n": 10, "recall": recall(index, exact, queries, 10), **timed(lambda: index.search(queries, 10), repeats)}


def search_and_terms(items: Floats, queries: Floats, k: int, repeats: int) -> Iterator[dict[str, Any]]:
    """What a scorer does once the sub-queries are encoded."""
    index, objective = ExactIndex(items), parse_config({}).objective
    directions = queries.reshape(-1, k, queries.shape[1])
    for n in (1, 10):

        def score(n: int = n) -> None:
            cosine, rows = index.search(queries, n)
            found = rows.reshape(*directions.shape[:2], n)
            inputs = SetInputs(
                query=directions[:, 0],
                directions=directions,
                items=found,
                top_cosine=cosine[:, 0].reshape(found.shape[:2]),
                item_vectors=items,
            )
            score_sets(inputs, objective)

        yield {"name": "search_and_terms", "n": n, **timed(score, repeats)}


def vendi_ways(directions: Floats, repeats: int) -> Iterator[dict[str, Any]]:
    """Batched against one set after another, as the package vendi-score computes it: from vectors, and pair by pair."""

    def entropy(kernel: Any) -> float:
        values = np.linalg.eigvalsh(kernel / len(kernel))
        values = values[values > 0]
        return float(np.exp(-(values * np.log(values)).sum()))

    def from_vectors() -> list[float]:
        return [entropy(rows @ rows.T) for rows in directions]

    def pair_by_pair() -> list[float]:
        scores = []
        for rows in directions:
            kernel = np.zeros((len(rows), len(rows)))
            for i in range(len(rows)):
                for j in range(i, len(rows)):
                    kernel[i, j] = kernel[j, i] = rows[i] @ rows[j]
            scores.append(entropy(kernel))
        return scores

    np.testing.assert_allclose(vendi(directions), from_vectors(), rtol=1e-4)
    ways: dict[str, Callable[[], Any]] = {
        "vendi": lambda: vendi(directions),
        "vendi_loop_from_vectors": from_vectors,
        "vendi_loop_pair_by_pair": pair_by_pair,
    }
    for name, work in ways.items():
        yield {"name": name, "sets": len(directions), "k": directions.shape[1], **timed(work, 10 * repeats)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=142_472)
    parser.add_argument("--fanouts", type=int, default=512)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--skip-ann", action="store_true", help="leave out the approximate ways, which take minutes")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    faiss.omp_set_num_threads(a.threads)
    items, queries = vectors(a.items, a.fanouts * a.k)
    results = [
        *products_alone(items, queries, a.repeats),
        *exact_ways(items, queries, a.repeats),
        *search_and_terms(items, queries, a.k, a.repeats),
        *vendi_ways(queries.reshape(a.fanouts, a.k, -1), a.repeats),
        *([] if a.skip_ann else approximate_ways(items, queries, a.repeats)),
    ]
    about = {"items": a.items, "queries": len(queries), "dim": items.shape[1], "threads": a.threads}
    print(json.dumps({"schema": 1, "name": "search", "environment": environment(), "about": about, "results": results}))


if __name__ == "__main__":
    main()
