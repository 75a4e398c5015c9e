"""Scoring a step's completions in one call against one completion per call.

    python -m benchmarks.rl_scoring [--completions 512] [--items 142472] [--repeats 5]

Every completion names ten sub-queries of its own over random unit items. Sub-query vectors are looked up, not computed:
the encoder's own gain from batches is left out, and what is compared is parsing, search and the set-level terms.
Prints JSON; seconds are medians over the repetitions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.environment import environment
from r4t.catalog.dataset import Dataset
from r4t.catalog.encoders import Encoder, unit_rows
from r4t.config import parse_config
from r4t.fanout import format_answer
from r4t.scoring import SetScorer, join_scored
from r4t.types import Floats, Query, ScoredBatch

QUERIES = 64


class Lookup(Encoder):
    """Vectors made beforehand: the text is the number of its row."""

    def __init__(self, vectors: Floats) -> None:
        self.name, self.dim, self.vectors = "lookup", vectors.shape[1], vectors

    def _embed(self, texts: list[str]) -> Floats:
        return self.vectors[[int(text) for text in texts]]

    def _state(self) -> list[bytes]:
        return [self.vectors.tobytes()]


def build(items: int, completions: int, k: int, dim: int) -> tuple[SetScorer, list[int], list[str]]:
    """A scorer over random unit vectors, and the queries and texts of the completions."""
    rng = np.random.default_rng(0)

    def random_rows(n: int) -> Floats:
        return unit_rows(rng.normal(size=(n, dim)).astype(np.float32), what="random vectors")

    dataset = Dataset(
        item_ids=[str(i) for i in range(items)],
        item_texts=[""] * items,
        item_names=[""] * items,
        item_vectors=random_rows(items),
        queries=[Query(query_id=str(q), text=str(q), split="train") for q in range(QUERIES)],
        query_vectors=random_rows(QUERIES),
    )
    config = parse_config({"fanout": {"k": k}, "encoder": {"dim": dim}})
    texts = [format_answer([str(c * k + i) for i in range(k)]) for c in range(completions)]
    return (
        SetScorer(dataset, Lookup(random_rows(completions * k)), config),
        [c % QUERIES for c in range(completions)],
        texts,
    )


def timed(score: Callable[[], ScoredBatch], repeats: int) -> tuple[float, ScoredBatch]:
    """Median seconds of `score`, after one call that warms up, and its result."""
    result = score()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        score()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", type=int, default=512)
    parser.add_argument("--items", type=int, default=142_472)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    a = parser.parse_args()
    scorer, rows, texts = build(a.items, a.completions, a.k, a.dim)
    whole, together = timed(lambda: scorer.score(rows, texts), a.repeats)
    single, apart = timed(
        lambda: join_scored([scorer.score([row], [text]) for row, text in zip(rows, texts, strict=True)]), a.repeats
    )
    np.testing.assert_allclose(together.rewards, apart.rewards, atol=1e-4)  # the same scores either way
    result = {
        "completions": a.completions,
        "subqueries": a.k,
        "items": a.items,
        "dim": a.dim,
        "repeats": a.repeats,
        "encoder": "excluded: vectors are looked up",
        "seconds_whole_batch": whole,
        "seconds_one_per_call": single,
        "ratio": single / whole,
        "sets_per_second_whole_batch": a.completions / whole,
    }
    print(json.dumps({"schema": 1, "name": "rl_scoring", "environment": environment(), "results": [result]}))


if __name__ == "__main__":
    main()
