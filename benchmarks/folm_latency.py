"""How long a run's language model takes from queries to sets of items: the yardstick of `benchmarks.retriever --folm`.

    python -m benchmarks.folm_latency RUN [--batches 1,8,64] [--repeats 5] [--threads 2]

R4T-FOLM as `r4t retrieve` asks it: one answer a query by the run's own engine, its sub-queries encoded and searched in
the run's catalogue. Test queries, another batch at every repetition. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import environment
from jobs.evaluate import query_rows
from jobs.policies import build_methods
from jobs.retrieve import config_of, local_policies
from r4t.catalog.dataset import load_dataset
from r4t.catalog.encoders import run_encoder
from r4t.lineage import read_json
from r4t.methods import QueryBatch

METHOD = "r4t_folm"


def times(run: Path, batches: list[int], repeats: int, threads: int) -> Iterator[dict[str, Any]]:
    """A row of percentiles for each size of batch."""
    config = config_of(run)
    rollout = config.rollout.model_copy(update={"workers": 1, "threads": threads})
    config = config.model_copy(update={"rollout": rollout})
    dataset = load_dataset(run / "prepare", config.objective.columns)
    rows = query_rows(config, dataset)
    encoder, policies = run_encoder(config, run / "prepare"), local_policies(run / "folm", config)
    method = build_methods([METHOD], config, run, dataset, encoder, policies)[METHOD]
    about = {"method": METHOD, "policy": read_json(run / "folm" / "policy" / "config.json")["model_type"]}
    about |= {"policy_bytes": (run / "folm" / "policy" / "model.safetensors").stat().st_size}
    about |= {"items": len(dataset.item_ids), "answers_at_most": config.rl.max_tokens}
    for batch in batches:
        taken = []
        for repetition in range(repeats + 1):
            chosen = [rows[(repetition * batch + i) % len(rows)] for i in range(batch)]
            started = time.perf_counter()
            method.retrieve(QueryBatch.of_rows(dataset, chosen), repetition)
            taken.append(1e3 * (time.perf_counter() - started))
        p50, p95 = np.percentile(taken[1:], [50, 95])
        yield about | {"batch": batch, "p50_ms": round(p50, 3), "p95_ms": round(p95, 3), "repeats": repeats}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--batches", default="1,8,64")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    results = list(times(a.run, [int(batch) for batch in a.batches.split(",")], a.repeats, a.threads))
    print(json.dumps({"schema": 1, "name": "folm_latency", "environment": environment(), "results": results}))


if __name__ == "__main__":
    main()
