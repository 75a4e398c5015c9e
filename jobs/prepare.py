"""Stage prepare: raw items and queries -> one encoded, checked dataset that every later stage reads."""

from __future__ import annotations

import time
from collections import Counter

from jobs.run import Run
from r4t.catalog.dataset import FILES, save_dataset
from r4t.catalog.encoders import load_encoder
from r4t.catalog.index import ExactIndex
from r4t.catalog.parquet import load_items, load_sets
from r4t.catalog.queries import generate_queries, load_vocabulary
from r4t.catalog.recipes import ingredient_sets, load_recipes, recipe_items
from r4t.catalog.source import SPLITS, Catalog, compose, keep_long_names, nonzero
from r4t.config import Config
from r4t.lineage import is_finished, write_manifest


def main(config: Config, run: Run) -> None:
    """Writes the prepare folder and its manifest. Raises UserError for input that cannot be used."""
    folder = run.stage_folder("prepare")
    if is_finished(folder):
        run.say("prepare: already finished")
        return
    start = time.monotonic()
    catalog = load_catalog(config)
    encoder = load_encoder(config.encoder.name, config.encoder.dim)
    item_vectors = encoder.encode([item.text for item in catalog.items])
    query_vectors = encoder.encode([query.text for query in catalog.queries])
    ExactIndex(item_vectors)  # refuses vectors that could not be searched, before anything is written
    save_dataset(folder, catalog, item_vectors, query_vectors)

    per_split = Counter(query.split for query in catalog.queries)
    seconds = time.monotonic() - start
    values = {"items": len(catalog.items), **{f"queries_{split}": per_split[split] for split in SPLITS}}
    write_manifest(
        folder,
        stage="prepare",
        config=config.model_dump(mode="json"),
        inputs={},
        files=FILES,
        metrics={**values, "seconds": round(seconds, 2)},
        extra={
            "dropped": catalog.dropped,
            "encoder": {"name": encoder.name, "dim": encoder.dim, "fingerprint": encoder.fingerprint()},
        },
    )
    splits = ", ".join(f"{per_split[split]} {split}" for split in SPLITS)
    line = f"prepare: {len(catalog.items)} items, queries {splits} ({config.task}), {seconds:.1f} s"
    run.log("prepare", 0, {**values, "seconds": seconds}, line)


def load_catalog(config: Config) -> Catalog:
    """Items and queries of the configured source and task, before encoding."""
    return _open_ended(config) if config.task == "oar" else _weakly_supervised(config)


def _open_ended(config: Config) -> Catalog:
    if config.data.kind == "recipes":
        recipes, dropped = load_recipes()
        items, more = recipe_items(recipes)
        dropped += more
    else:
        items, dropped = load_items(config.data), Counter[str]()
    items = keep_long_names(items, config.data.min_item_words, dropped)
    vocabulary = load_vocabulary(config.data.families)
    queries = generate_queries(vocabulary, config.data.n_queries, config.data.seed, [item.name for item in items])
    return Catalog(items=items, queries=queries, dropped=nonzero(dropped))


def _weakly_supervised(config: Config) -> Catalog:
    data = config.data
    if data.kind == "recipes":
        recipes, dropped = load_recipes()
        items, sets = ingredient_sets(recipes, config.data.seed)
    else:
        items = load_items(data)
        sets, dropped = load_sets(data, {item.item_id for item in items})
    items = keep_long_names(items, data.min_item_words, dropped)
    return compose(items, sets, max_share=data.max_item_share, min_size=data.min_set_size, dropped=dropped)
