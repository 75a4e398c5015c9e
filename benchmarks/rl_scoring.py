"""Scoring a step's completions in one call against one completion per call.

    python -m benchmarks.rl_scoring [--sets RUN/sets] [--completions 512] [--items 142472] [--repeats 5]

Over random unit items. Without `--sets` every completion names ten sub-queries of its own, which is the worst case: one
call then saves nothing but calls. With it, the completions are those that a run's policy wrote in stage 2, with their
own sub-queries in common. One completion per call is measured over the library's index and over a plain FAISS one,
which is what a reward function of one sample's text usually holds. Sub-query vectors are looked up, not computed: the
encoder's gain from batches is left out, and what is compared is parsing, search and the set-level terms. Prints JSON;
seconds are medians over the repetitions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import faiss
import numpy as np
import pyarrow.parquet as pq

from benchmarks.environment import environment
from r4t.catalog.dataset import Dataset
from r4t.catalog.encoders import Encoder, load_encoder, unit_rows
from r4t.config import parse_config
from r4t.errors import UserError
from r4t.fanout import format_answer, parse
from r4t.scoring import SetScorer, join_scored
from r4t.types import Floats, Ints, Query, ScoredBatch

Result = TypeVar("Result")

QUERIES = 64


class Lookup(Encoder):
    """Vectors made beforehand: row `rows[text]`."""

    def __init__(self, vectors: Floats, rows: dict[str, int]) -> None:
        self.name, self.dim, self.vectors, self.rows = "lookup", vectors.shape[1], vectors, rows

    def _embed(self, texts: list[str]) -> Floats:
        return self.vectors[[self.rows[text] for text in texts]]

    def _state(self) -> list[bytes]:
        return [self.vectors.tobytes()]


def random_rows(n: int, dim: int) -> Floats:
    return unit_rows(np.random.default_rng(n).normal(size=(n, dim)).astype(np.float32), what="random vectors")


def made_up(completions: int, k: int, dim: int) -> tuple[Lookup, list[str]]:
    """Answers that have no sub-query in common."""
    names = [str(i) for i in range(completions * k)]
    answers = [format_answer(names[start : start + k]) for start in range(0, len(names), k)]
    return Lookup(random_rows(len(names), dim), {name: i for i, name in enumerate(names)}), answers


def written(sets: Path, completions: int) -> tuple[Lookup, list[str]]:
    """The first valid answers in the shards of a finished stage 2, query after query as a step sees them."""
    answers: list[str] = []
    vectors: dict[str, list[float]] = {}
    for path in sorted(path for path in sets.glob("shard-*.parquet") if ".subqueries" not in path.name):
        table = pq.read_table(path.with_suffix(".subqueries.parquet"))
        texts = table["text"].to_pylist()
        known = "vector" in table.column_names  # sets of items keep none
        rows_of = table["vector"].to_pylist() if known else load_encoder("wordllama", 128).encode(texts).tolist()
        vectors |= dict(zip(texts, rows_of, strict=True))
        shard = pq.read_table(path, columns=["valid", "subqueries"]).to_pylist()
        answers += [format_answer([texts[i] for i in row["subqueries"]]) for row in shard if row["valid"]]
        if len(answers) >= completions:
            break
    if len(answers) < completions:
        raise UserError(f"{sets} holds {len(answers)} valid answers, {completions} are wanted: lower --completions")
    rows = {text: i for i, text in enumerate(vectors)}
    stacked = unit_rows(np.array(list(vectors.values()), dtype=np.float32), what=str(sets))
    return Lookup(stacked, rows), answers[:completions]


class Flat:
    """A plain FAISS index as it comes."""

    def __init__(self, vectors: Floats) -> None:
        self.size = len(vectors)
        self._flat = faiss.IndexFlatIP(vectors.shape[1])
        self._flat.add(vectors)

    def search(self, queries: Floats, n: int) -> tuple[Floats, Ints]:
        return self._flat.search(queries, n)


def build(items: int, k: int, encoder: Lookup, flat: bool = False) -> SetScorer:
    """A scorer over random unit items and queries."""
    dataset = Dataset(
        item_ids=[str(i) for i in range(items)],
        item_texts=[""] * items,
        item_names=[""] * items,
        item_vectors=random_rows(items, encoder.dim),
        queries=[Query(query_id=str(q), text=str(q), split="train") for q in range(QUERIES)],
        query_vectors=random_rows(QUERIES, encoder.dim),
    )
    config = parse_config({"fanout": {"k": k}, "encoder": {"dim": encoder.dim}})
    return SetScorer(dataset, encoder, config, Flat(dataset.item_vectors) if flat else None)


def timed(work: Callable[[], Result], repeats: int) -> tuple[float, Result]:
    """Median seconds of `work`, after one call that warms up, and its result."""
    result = work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, help="the sets folder of a run; default: answers without a common query")
    parser.add_argument("--completions", type=int, default=512)
    parser.add_argument("--items", type=int, default=142_472)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    a = parser.parse_args()
    encoder, texts = written(a.sets, a.completions) if a.sets else made_up(a.completions, a.k, a.dim)
    scorer = build(a.items, a.k, encoder)
    rows = [c % QUERIES for c in range(a.completions)]
    asked = [text for answer in texts for text in parse(answer, a.k).subqueries]
    whole, together = timed(lambda: scorer.score(rows, texts), a.repeats)

    def one_by_one(scorer: SetScorer) -> ScoredBatch:
        return join_scored([scorer.score([row], [text]) for row, text in zip(rows, texts, strict=True)])

    single, apart = timed(lambda: one_by_one(scorer), a.repeats)
    plain = build(a.items, a.k, encoder, flat=True)
    flat, also = timed(lambda: one_by_one(plain), a.repeats)
    for other in (apart, also):
        np.testing.assert_allclose(together.rewards, other.rewards, atol=1e-4)  # the same scores either way
    result = {
        "completions": a.completions,
        "subqueries": a.k,
        "distinct_subqueries": len(set(asked)),
        "items": a.items,
        "dim": encoder.dim,
        "repeats": a.repeats,
        "encoder": "excluded: vectors are looked up",
        "seconds_whole_batch": whole,
        "seconds_one_per_call": single,
        "seconds_one_per_call_faiss": flat,
        "ratio": single / whole,
        "ratio_faiss": flat / whole,
        "sets_per_second_whole_batch": a.completions / whole,
    }
    print(json.dumps({"schema": 1, "name": "rl_scoring", "environment": environment(), "results": [result]}))


if __name__ == "__main__":
    main()
