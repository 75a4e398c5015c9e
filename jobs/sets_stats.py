"""`r4t sets stats`: what the training sets of a run hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from r4t.catalog.dataset import load_dataset
from r4t.catalog.index import open_index
from r4t.config import load_config
from r4t.errors import UserError
from r4t.lineage import MANIFEST, file_hash
from r4t.sets.chart import draw_stats
from r4t.sets.stats import set_stats
from r4t.types import Floats, Ints

BLOCK = 8192  # sub-queries searched at a time


def stats(run: Path, picture: Path | None = None, zero_shot: bool = False) -> dict[str, Any]:
    """The numbers of a run's sets, and with `picture` a PNG of them.

    `zero_shot` asks for the sets of the policy before RL. Raises UserError for a folder that is no run or has no sets.
    """
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is no run directory (it has no config.yaml): give the folder that `r4t run` made")
    config, prepare = load_config(run / "config.yaml"), run / "prepare"
    dataset = load_dataset(prepare)
    index = open_index(prepare, dataset.item_vectors, config.index)

    def nearest(vectors: Floats) -> Ints:
        blocks = (vectors[start : start + BLOCK] for start in range(0, len(vectors), BLOCK))
        return np.concatenate([index.search(block, 1)[1][:, 0] for block in blocks])

    folder = run / "sets" / "zero_shot" if zero_shot else run / "sets"
    found = set_stats(folder, dataset, nearest, file_hash(prepare / MANIFEST))
    if picture is not None:
        draw_stats(picture, config.name, found)
    return {"schema": 1, "name": config.name, "task": config.task, "folder": str(folder), **found}


def show(found: dict[str, Any]) -> str:
    """The same as a few lines of text."""
    items, per_query = found["items"], found["sets_per_query"] or {"min": 0, "median": 0, "max": 0}
    unread = ", ".join(f"{count:,} {name}" for name, count in found["status"].items() if name != "ok")
    lines = [
        f"{found['name']}: {found['answers']:,} answers to {found['queries']:,} queries, {found['sets']:,} sets",
        f"  unique sets      {found['unique_sets']:,}",
        f"  sets per query   {per_query['min']:.0f} to {per_query['max']:.0f}, median {per_query['median']:.0f}",
        f"  unreadable       {unread or 'none'}",
        f"  items            {items['used']:,} of {items['catalogue']:,} used ({items['coverage']:.1%}),"
        f" {items['never_used']:,} never",
    ]
    if items["share_of_the_top_percent"] is not None:
        lines.append(
            f"  popularity       the top 1 % of items have {items['share_of_the_top_percent']:.1%} of the places"
        )
    for name, term in {"reward": found["reward"], **found["terms"]}.items():
        if term:
            edges = term["edges"]
            lines.append(f"  {name:<16} {term['mean']:.3f} ± {term['std']:.3f}  ({edges[0]:.3f} to {edges[-1]:.3f})")
    return "\n".join(lines)
