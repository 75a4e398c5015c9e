"""Generated broad queries: reading, determinism, splits (paper section 6.2)."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.catalog.queries import generate_queries
from r4t.catalog.recipes import load_recipes
from r4t.catalog.source import normalise
from r4t.catalog.vocabulary import FAMILIES, Vocabulary, load_vocabulary
from r4t.errors import UserError

DOMAINS = ("food", "fashion", "music")


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_vocabulary_has_eight_families_of_distinct_modifiers(domain: str) -> None:
    vocabulary = load_vocabulary(domain)
    assert tuple(vocabulary.modifiers) == FAMILIES
    assert all(len(set(words)) == len(words) >= 18 for words in vocabulary.modifiers.values())
    assert len(set(vocabulary.nouns)) == 8
    everything = [word for words in vocabulary.modifiers.values() for word in words]
    assert all(word == normalise(word) for word in everything)


@pytest.mark.parametrize("domain", DOMAINS)
def test_queries_are_distinct_broad_and_split_8_1_1(domain: str) -> None:
    queries = generate_queries(load_vocabulary(domain), 3000, seed=0)
    assert len({normalise(q.text) for q in queries}) == len({q.query_id for q in queries}) == 3000
    assert all(2 <= len(q.text.split()) <= 6 for q in queries)
    assert Counter(q.split for q in queries) == {"train": 2400, "valid": 300, "test": 300}
    assert {q.query_id.split("-")[0] for q in queries} == set(FAMILIES)


def test_every_family_reaches_every_split() -> None:
    queries = generate_queries(load_vocabulary("food"), 3000, seed=1)
    found = {(q.query_id.split("-")[0], q.split) for q in queries}
    assert found == {(family, split) for family in FAMILIES for split in ("train", "valid", "test")}


def test_generation_is_a_function_of_its_arguments() -> None:
    vocabulary = load_vocabulary("food")
    first, again, other = (generate_queries(vocabulary, 400, seed) for seed in (3, 3, 4))
    assert first == again
    assert [q.text for q in first] != [q.text for q in other]


def test_a_query_never_contains_a_name_of_two_words() -> None:
    vocabulary = load_vocabulary("food")
    taken = ["Cosy  Winter", "post-workout breakfast", "dinner"]
    texts = [q.text for q in generate_queries(vocabulary, 20_000, seed=0, taken=taken)]
    assert not [t for t in texts if "cosy winter" in t or "post-workout breakfast" in t]
    assert [t for t in texts if t.endswith("dinner")], "a name of one word must not empty the vocabulary"


def test_generated_food_queries_do_not_name_recipes() -> None:
    names = [recipe.name for recipe in load_recipes()[0]]
    texts = [q.text for q in generate_queries(load_vocabulary("food"), 3000, seed=0, taken=names)]
    long_names = {normalise(name) for name in names if len(name.split()) > 1}
    assert not [text for text in texts[::3] if any(f" {name} " in f" {text} " for name in long_names)]


def test_too_many_queries_name_the_number_that_is_possible() -> None:
    vocabulary = Vocabulary({"mood": ("calm", "bold"), "season": ("winter",)}, ("meal",))
    assert len(generate_queries(vocabulary, 5, seed=0)) == 5
    with pytest.raises(UserError, match=r"data.n_queries=5"):
        generate_queries(vocabulary, 6, seed=0)


@settings(max_examples=20)
@given(n=st.integers(10, 800), seed=st.integers(0, 2**32 - 1))
def test_any_size_and_seed_gives_disjoint_exhaustive_splits(n: int, seed: int) -> None:
    queries = generate_queries(load_vocabulary("music"), n, seed)
    sizes = Counter(q.split for q in queries)
    assert sizes["valid"] == sizes["test"] == n // 10
    assert sizes["train"] == n - 2 * (n // 10)
    assert len(np.unique([q.text for q in queries])) == n
