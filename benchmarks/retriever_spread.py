"""What `spread` and the choice of an engine change in the sets of an exported retriever.

    r4t export RUN DIR --onnx --int8
    python -m benchmarks.retriever_spread RUN DIR [--queries 300] [--k 10] [--spreads 0 0.5 1 2]

For every spread, means over the run's test queries (one seed) of the cosine of items and query and of Vendi/k of the
items, in the run's encoder and in the judge's. For every engine in DIR, how far its rows are from those of torch in
float32, and how often they find the same item. `jaccard`: of the items that the sets of two seeds share. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import environment
from jobs.evaluate import query_rows
from r4t.catalog.dataset import load_dataset
from r4t.config import load_config
from r4t.evaluation.judge import Judge, judge_encoder
from r4t.objective.vendi import vendi
from r4t.retriever import ItemIndex, R4TRetriever
from r4t.retriever.files import ONNX, ONNX_INT8
from r4t.types import Floats, Ints, RetrievedSets

SPREADS = (0.0, 0.25, 0.5, 0.7, 0.9, 1.0, 1.3, 2.0, 3.0)


def engines(folder: Path) -> dict[str, dict[str, Any]]:
    """Arguments of `from_pretrained` for every engine but torch in float32 that can run the folder."""
    found: dict[str, dict[str, Any]] = {"torch, bfloat16": {"dtype": "bfloat16"}}
    found |= {
        name: {"engine": name} for name, file in (("onnx", ONNX), ("onnx-int8", ONNX_INT8)) if (folder / file).is_file()
    }
    return found


def compared(folder: Path, name: str, given: dict[str, Any], queries: Floats, items: ItemIndex) -> dict[str, Any]:
    """The rows of one engine against those of torch in float32."""
    reference = R4TRetriever.from_pretrained(folder).embed(queries)
    rows = R4TRetriever.from_pretrained(folder, **given).embed(queries)
    cosine = np.einsum("bld,bld->bl", reference, rows)
    (_, expected), (_, nearest) = (items.nearest(x.reshape(-1, x.shape[-1]), 1) for x in (reference, rows))
    return {
        "engine": name,
        "largest_difference": float(np.abs(reference - rows).max()),
        "cosine": {"mean": float(cosine.mean()), "least": float(cosine.min())},
        "same_nearest_item": float((expected == nearest).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--spreads", type=float, nargs="+", default=SPREADS)
    a = parser.parse_args()
    config, dataset = load_config(a.run / "config.yaml"), load_dataset(a.run / "prepare")
    rows = query_rows(config, dataset)[: a.queries]
    queries, place = dataset.query_vectors[rows], {name: row for row, name in enumerate(dataset.item_ids)}
    retriever, items = R4TRetriever.from_pretrained(a.folder), ItemIndex.of_run(a.run)
    judge = Judge(judge_encoder(config), dataset)

    def shown(**how: Any) -> Ints:
        sets = retriever.retrieve(queries, a.k, items=items, **how)
        return np.array([[place[item.item_id] for item in one.items] for one in sets])

    results: list[dict[str, Any]] = []
    for spread in a.spreads:
        found = shown(spread=spread)
        vectors = dataset.item_vectors[found]
        judged = judge.score(rows, RetrievedSets(items=found[:, :, None]))
        results.append(
            {
                "spread": spread,
                "alignment": float(np.einsum("bkd,bd->bk", vectors, queries).mean()),
                "diversity": float((vendi(vectors) / a.k).mean()),
                "judge_alignment": float(judged["alignment"].mean()),
                "judge_diversity": float(judged["diversity"].mean()),
            }
        )
    pairs = [(set(x), set(y)) for x, y in zip(shown(seed=0).tolist(), shown(seed=1).tolist(), strict=True)]
    results.append({"jaccard": float(np.mean([len(x & y) / len(x | y) for x, y in pairs]))})
    results += [compared(a.folder, name, given, queries, items) for name, given in engines(a.folder).items()]
    about = {"queries": len(rows), "k": a.k, "calls": retriever.calls}
    print(
        json.dumps({"schema": 1, "name": "retriever_spread", "environment": environment(), **about, "results": results})
    )


if __name__ == "__main__":
    main()
