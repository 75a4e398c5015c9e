"""Stage prepare: raw items and queries -> one encoded, checked dataset that every later stage reads."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, replace

from jobs.encoding import Encoding
from jobs.run import Run
from r4t.catalog.augment import recompose
from r4t.catalog.dataset import FILES, save_dataset
from r4t.catalog.encoders import encoder_record
from r4t.catalog.endpoint import Client
from r4t.catalog.index import checked_vectors, write_index
from r4t.catalog.leaks import check_leaks, without_held_out_sets, without_leaks
from r4t.catalog.load import load_catalog
from r4t.catalog.source import SPLITS, Catalog, nonzero
from r4t.catalog.written import Writer
from r4t.config import Config
from r4t.lineage import is_finished, write_manifest
from r4t.storage.sources import fetch_sources
from r4t.types import Floats


def main(config: Config, run: Run) -> None:
    """Writes the prepare folder and its manifest. Raises UserError for input that cannot be used."""
    folder = run.stage_folder("prepare")
    if is_finished(folder):
        run.say("prepare: already finished")
        return
    start = time.monotonic()
    dropped: Counter[str] = Counter()
    writer = _writer(config, run, dropped)
    sources = fetch_sources(config.data)
    catalog = load_catalog(config.model_copy(update={"data": sources.data}), writer)
    catalog = replace(catalog, queries=without_held_out_sets(catalog.queries, dropped))
    encoding = Encoding(config, run, folder)
    item_vectors = encoding.items(catalog)
    checked_vectors(item_vectors)  # refuses vectors that could not be searched, before the dataset is written
    catalog = _with_recomposed_sets(config, catalog, item_vectors, writer, dropped)
    check_leaks(catalog.queries)
    query_vectors = encoding.texts("queries", [query.text for query in catalog.queries])
    save_dataset(folder, catalog, item_vectors, query_vectors)
    files = [*FILES, *write_index(folder, item_vectors, config.index, query_vectors)]

    per_split = Counter(query.split for query in catalog.queries)
    seconds = time.monotonic() - start
    values = {"items": len(catalog.items), **{f"queries_{split}": per_split[split] for split in SPLITS}}
    if config.data.augment.copies:
        values["queries_recomposed"] = sum(bool(query.origin) for query in catalog.queries)
    write_manifest(
        folder,
        stage="prepare",
        config=config.model_dump(mode="json"),
        inputs={},
        files=[*files, *encoding.files],
        metrics={**values, "encoded": encoding.computed, "seconds": round(seconds, 2)},
        extra={
            "dropped": nonzero(Counter(catalog.dropped) + dropped),
            "kept": {"items whose text repeats another's": catalog.repeated_texts()},
            **({"sources": sources.records} if sources.records else {}),
            "item_vectors": "encoded" if catalog.item_vectors is None else "given",
            **({"endpoint": asdict(writer.client.counts)} if writer else {}),
            "encoder": encoder_record(encoding.encoder, config.encoder),
        },
    )
    splits = ", ".join(f"{per_split[split]} {split}" for split in SPLITS)
    line = f"prepare: {len(catalog.items)} items, queries {splits} ({config.task}), {seconds:.1f} s"
    run.log("prepare", 0, {**values, "seconds": seconds}, line)


def _with_recomposed_sets(
    config: Config, catalog: Catalog, vectors: Floats, writer: Writer | None, dropped: Counter[str]
) -> Catalog:
    """The catalogue with the training sets that data.augment adds. `vectors` [N, d] are the items'."""
    data = config.data
    if not data.augment.copies:
        return catalog
    if writer is None:
        made = recompose(catalog.items, catalog.queries, vectors, data.augment, data.seed)
    else:
        made = writer.copies(catalog.items, catalog.queries, data.augment)
    kept = without_leaks(made, catalog.queries, dropped)
    return replace(catalog, queries=[*catalog.queries, *kept])


def _writer(config: Config, run: Run, dropped: Counter[str]) -> Writer | None:
    if config.data.writer == "vocabulary":
        return None
    client = Client(config.data.endpoint, run.progress)
    return Writer(client=client, domain=config.fanout.domain, seed=config.data.seed, dropped=dropped)
