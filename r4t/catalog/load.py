"""From the configuration to a catalogue: the source's items, then its sets or broad queries."""

from __future__ import annotations

from collections import Counter

from r4t.catalog.musiccaps import load_musiccaps
from r4t.catalog.own_queries import load_queries
from r4t.catalog.polyvore import load_polyvore
from r4t.catalog.queries import generate_queries
from r4t.catalog.recipes import ingredient_sets, load_recipes, recipe_items
from r4t.catalog.source import Catalog, Item, Source, compose, keep_long_names, keep_texts, nonzero
from r4t.catalog.table import load_table
from r4t.catalog.vectors import read_vectors, with_vectors
from r4t.catalog.vocabulary import load_vocabulary
from r4t.catalog.written import Writer
from r4t.config import Config, Data
from r4t.types import Query


def load_catalog(config: Config, writer: Writer | None = None) -> Catalog:
    """Items and queries of the configured source and task, before encoding. Raises UserError for unusable input.

    A `writer` writes the broad queries, and the titles of sets that have none.
    """
    data, source = config.data, load_source(config)
    dropped = source.dropped
    items = keep_long_names(keep_texts(source.items, dropped), data.min_item_words, dropped)
    if config.task == "oar":
        queries = _broad_queries(data, items, writer, dropped)
        return Catalog(items=items, queries=queries, dropped=nonzero(dropped))
    sets = source.sets if writer is None else writer.titles(source.sets, {item.item_id: item.name for item in items})
    return compose(items, sets, max_share=data.max_item_share, min_size=data.min_set_size, dropped=dropped)


def load_source(config: Config) -> Source:
    """What the source holds before any filter, with the vectors of `data.item_vectors` beside the items."""
    data, with_sets = config.data, config.task == "wscr"
    if data.kind == "recipes":
        return _recipes(data, with_sets=with_sets)
    if data.kind == "table":
        source = load_table(data, with_sets=with_sets)
    elif data.kind == "polyvore":
        source = load_polyvore(data, with_sets=with_sets)
    else:
        source = load_musiccaps(data, with_sets=with_sets)
    if data.item_vectors is None:
        return source
    vectors = read_vectors(data.item_vectors, "data.item_vectors")
    items = with_vectors(source.items, vectors, f"{data.item_vectors} (data.item_vectors)")
    return Source(items=items, sets=source.sets, dropped=source.dropped)


def _recipes(data: Data, *, with_sets: bool) -> Source:
    recipes, dropped = load_recipes()
    if with_sets:
        items, sets = ingredient_sets(recipes, data.seed)
        return Source(items=items, sets=sets, dropped=dropped)
    items, more = recipe_items(recipes)
    return Source(items=items, dropped=dropped + more)


def _broad_queries(data: Data, items: list[Item], writer: Writer | None, dropped: Counter[str]) -> list[Query]:
    if data.queries is not None:
        return load_queries(data.queries, data.seed, dropped)
    names = [item.name for item in items]
    if writer is not None:
        return writer.queries(data.n_queries, names)
    return generate_queries(load_vocabulary(data.families), data.n_queries, data.seed, names)
