"""A run whose evaluation showed sets of two methods, one of which wrote sub-queries."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jobs.run import Run
from r4t.catalog.dataset import FILES, save_dataset
from r4t.catalog.encoders import load_encoder
from r4t.catalog.source import Catalog, Item
from r4t.config import parse_config
from r4t.evaluation.shown import FILE, write_shown
from r4t.lineage import write_manifest
from r4t.types import Query, RetrievedSets


def make_shown_run(folder: Path) -> Run:
    names = ["beef stew", "apple pie", "green salad", "lemon cake"]
    encoder = load_encoder("wordllama", 64)
    queries = [Query(query_id=str(i), text=f"dinner {i}", split="test") for i in range(3)]
    catalog = Catalog(items=[Item(item_id=n, text=n, name=n) for n in names], queries=queries, dropped={})
    run = Run(folder, parse_config({"encoder": {"dim": 64}}))
    prepare, evaluate = run.stage_folder("prepare"), run.stage_folder("evaluate")
    save_dataset(prepare, catalog, encoder.encode(names), encoder.encode([q.text for q in queries]))
    write_manifest(prepare, stage="prepare", config={}, inputs={}, files=FILES, metrics={})
    items = np.array([[[0], [1]], [[2], [3]], [[1], [3]]])
    subqueries = (("stew", "pie"), ("salad", "cake"), ())
    sets = {"mmr": RetrievedSets(items=items), "r4t_folm": RetrievedSets(items=items, subqueries=subqueries)}
    write_shown(evaluate, np.arange(3), sets)
    write_manifest(evaluate, stage="evaluate", config={}, inputs={}, files=[FILE], metrics={})
    return run
