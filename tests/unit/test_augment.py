"""Recomposed training sets (paper C.2): sizes, seeds, pools, determinism, and nothing held out in any of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.catalog.augment import recompose, seed_size
from r4t.catalog.encoders import load_encoder
from r4t.catalog.leaks import check_leaks, without_held_out_sets, without_leaks
from r4t.catalog.recipes import ingredient_sets, load_recipes
from r4t.catalog.source import SPLITS, Catalog, Item, compose, normalise
from r4t.config import Augment
from r4t.types import Floats, Query

SETTINGS = Augment(copies=3)


def catalogue(n: int, sets: list[tuple[str, list[int]]], seed: int = 0) -> tuple[list[Item], list[Query], Floats]:
    """`n` items at random places of a sphere, and a query for each (split, rows)."""
    vectors = np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)
    items = [Item(item_id=str(i), text=f"thing {i}", name=f"thing {i}") for i in range(n)]
    queries = [
        Query(query_id=f"set-{i}", text=f"title {i}", split=split, references=tuple(rows))
        for i, (split, rows) in enumerate(sets)
    ]
    return items, queries, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


some_sets = st.lists(
    st.tuples(st.sampled_from(SPLITS), st.lists(st.integers(0, 39), min_size=1, max_size=20, unique=True)), max_size=8
)


@settings(max_examples=60)
@given(sets=some_sets, seed=st.integers(0, 1000), size=st.integers(1, 12), spare=st.integers(1, 8))
def test_a_copy_is_a_seed_of_its_set_and_near_items_from_the_pool(
    sets: list[tuple[str, list[int]]], seed: int, size: int, spare: int
) -> None:
    items, queries, vectors = catalogue(40, sets)
    chosen = Augment(copies=2, size=size, shortlist=size + spare, pool=size + 2 * spare)
    made = list(recompose(items, queries, vectors, chosen, seed))
    by_id = {query.query_id: query for query in queries}
    assert len(made) == 2 * sum(query.split == "train" for query in queries)
    assert len({query.query_id for query in [*queries, *made]}) == len(queries) + len(made)
    nearest = np.argsort(-(vectors @ vectors.T).astype(np.float64), axis=1)[:, : chosen.pool]
    for query in made:
        origin = by_id[query.origin]
        own = set(origin.references)
        assert origin.split == query.split == "train"
        assert len(query.references) == len(set(query.references)) <= size
        assert own & set(query.references), "a copy keeps at least one item"
        assert set(query.references) - own <= set(nearest[list(own)].flatten().tolist())
        assert query.text.startswith(origin.text)


@pytest.mark.parametrize("n_items", [40, 400])
def test_copies_are_full_where_the_catalogue_is_large_enough(n_items: int) -> None:
    items, queries, vectors = catalogue(n_items, [("train", [1, 2, 3, 4]), ("train", list(range(5, 35)))])
    made = list(recompose(items, queries, vectors, SETTINGS, 0))
    assert {len(query.references) for query in made} == {10}
    assert len({frozenset(query.references) for query in made}) == len(made), "copies differ"


@given(items=st.integers(1, 200), low=st.floats(0.01, 1), high=st.floats(0.01, 1), size=st.integers(1, 50))
def test_the_seed_is_a_whole_number_within_its_share(items: int, low: float, high: float, size: int) -> None:
    low, high = min(low, high), max(low, high)
    chosen = Augment(copies=1, size=size, shortlist=max(2, size), pool=max(2, size), seed_share=(low, high))
    kept = {seed_size(np.random.default_rng(i), items, chosen) for i in range(20)}
    # Oracle: every count there is, and those within the share; a large set is bounded by the copy's size instead.
    within = [c for c in range(1, items + 1) if low * items - 1e-9 <= c <= high * min(items, size) + 1e-9]
    assert kept <= set(within) or (not within and len(kept) == 1)
    assert all(1 <= c <= max(1, high * items + 1e-9) for c in kept)


def test_a_copy_depends_on_its_own_set_and_the_seed_alone() -> None:
    sets = [("train", [1, 2, 3]), ("valid", [4, 5]), ("train", [6, 7, 8, 9])]
    items, queries, vectors = catalogue(60, sets)
    first, again, other = (list(recompose(items, queries, vectors, SETTINGS, seed)) for seed in (0, 0, 1))
    assert first == again
    assert [query.references for query in first] != [query.references for query in other]
    alone = list(recompose(items, [queries[2]], vectors, SETTINGS, 0))
    assert alone == first[3:]


def test_the_title_names_a_kept_item_unless_every_name_is_long() -> None:
    items, queries, vectors = catalogue(60, [("train", [1, 2, 3, 4])])
    for query in recompose(items, queries, vectors, SETTINGS, 0):
        named = int(query.text.split()[-1])
        assert named in queries[0].references
        assert named in query.references
    long = [Item(item_id=i.item_id, text=i.text, name="a name of five words") for i in items]
    assert {query.text for query in recompose(long, queries, vectors, SETTINGS, 0)} == {"title 0"}


def test_completion_is_greedy_in_relevance_minus_redundancy() -> None:
    """Oracle: the same rule in plain loops. The pool is the whole catalogue and so is the shortlist."""
    items, queries, vectors = catalogue(12, [("train", [0, 1])], seed=3)
    every = Augment(copies=1, pool=24, shortlist=24, size=6, seed_share=(0.5, 0.5))
    (made,) = recompose(items, queries, vectors, every, 0)
    centre = (vectors[0] + vectors[1]) / 2
    chosen = [made.references[0]]
    while len(chosen) < 6:
        value = {
            i: float(vectors[i] @ centre) - 0.5 * max(float(vectors[i] @ vectors[c]) for c in chosen)
            for i in range(12)
            if i not in chosen
        }
        chosen.append(max(value, key=lambda i: value[i]))
    assert list(made.references) == chosen


@cache
def recipes() -> tuple[Catalog, list[Query], Counter[str]]:
    raw, dropped = load_recipes()
    items, sets = ingredient_sets(raw, seed=0)
    catalog = compose(items, sets, max_share=0.05, min_size=2, dropped=dropped)
    catalog = replace(catalog, queries=without_held_out_sets(catalog.queries, dropped))
    vectors = load_encoder("wordllama", 128).encode([item.text for item in catalog.items])
    lost: Counter[str] = Counter()
    made = recompose(catalog.items, catalog.queries, vectors, SETTINGS, 0)
    return catalog, without_leaks(made, catalog.queries, lost), lost


def test_nothing_held_out_reaches_the_copies_of_the_real_recipes() -> None:
    catalog, kept, lost = recipes()
    held_out = [query for query in catalog.queries if query.split != "train"]
    training = [query for query in catalog.queries if query.split == "train"]
    assert len(kept) + sum(lost.values()) == 3 * len(training)
    assert len(kept) > 2.9 * len(training)
    assert {normalise(q.text) for q in kept}.isdisjoint(normalise(q.text) for q in held_out)
    assert {q.origin for q in kept} <= {q.query_id for q in training}
    assert {q.query_id for q in kept}.isdisjoint(q.query_id for q in catalog.queries)
    assert {frozenset(q.references) for q in kept}.isdisjoint(frozenset(q.references) for q in held_out)
    check_leaks([*catalog.queries, *kept])


def test_copies_of_the_real_recipes_are_coherent() -> None:
    """Their items suit each other better than as many items at random."""
    catalog, kept, _ = recipes()
    vectors = load_encoder("wordllama", 128).encode([item.text for item in catalog.items])
    rng = np.random.default_rng(0)

    def cohesion(rows: list[int]) -> float:
        cosine = vectors[rows] @ vectors[rows].T
        return float((cosine.sum() - len(rows)) / (len(rows) * (len(rows) - 1)))

    ours = np.mean([cohesion(list(query.references)) for query in kept[:300]])
    random = np.mean([cohesion(rng.choice(len(vectors), 10, replace=False).tolist()) for _ in range(300)])
    people = np.mean([cohesion(list(q.references)) for q in catalog.queries[:300]])
    assert ours > people > random
