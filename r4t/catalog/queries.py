"""Broad queries for open-ended retrieval, written from a vocabulary (paper C.1, without a language model).

A query is one modifier and a noun ("post-workout breakfast"), or two modifiers of different families and a
noun ("cosy winter dinner").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from itertools import combinations

import numpy as np

from r4t.catalog.source import normalise
from r4t.catalog.vocabulary import MAX_WORDS, Vocabulary
from r4t.errors import UserError
from r4t.types import Query

MIN_WORDS = 2


def generate_queries(vocabulary: Vocabulary, n: int, seed: int, taken: Collection[str] = ()) -> list[Query]:
    """`n` distinct queries of 2-6 words with a random 8:1:1 split, a function of the arguments alone.

    No query contains one of the names in `taken` that has two words or more: a query that names an item is not broad.
    Raises UserError when the vocabulary holds fewer than `n` queries.
    """
    rng = np.random.default_rng(seed)
    singles = list(_one_modifier(vocabulary))
    pairs = list(_two_modifiers(vocabulary))
    candidates = [group[i] for group in (singles, pairs) for i in rng.permutation(len(group))]
    names = {normalise(name) for name in taken if len(name.split()) > 1}
    texts: dict[str, str] = {}
    for family, text in candidates:
        if len(texts) == n:
            break
        if _reads_well(text) and names.isdisjoint(phrases(text)):
            texts.setdefault(normalise(text), family)
    if len(texts) < n:
        raise UserError(f"the vocabulary gives {len(texts)} queries, not {n}: set data.n_queries={len(texts)}")
    return with_splits(texts, rng)


def _one_modifier(vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    for family, modifiers in vocabulary.modifiers.items():
        yield from ((family, f"{modifier} {noun}") for modifier in modifiers for noun in vocabulary.nouns)


def _two_modifiers(vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    simple = [family for family in vocabulary.modifiers if family != "hybrid"]
    for first, second in combinations(simple, 2):
        for a in vocabulary.modifiers[first]:
            for b in vocabulary.modifiers[second]:
                yield from (("hybrid", f"{a} {b} {noun}") for noun in vocabulary.nouns)


def _reads_well(text: str) -> bool:
    words = text.split()
    return MIN_WORDS <= len(words) <= MAX_WORDS and len(set(words)) == len(words)


def phrases(text: str) -> set[str]:
    """Every run of two or more words."""
    words = text.split()
    return {" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 2, len(words) + 1)}


def with_splits(texts: dict[str, str], rng: np.random.Generator) -> list[Query]:
    """Queries of {text: family}, numbered within their family, split 8:1:1 at random."""
    held_out = max(len(texts) // 10, 1)
    splits = np.array(["train"] * len(texts), dtype=object)
    shuffled = rng.permutation(len(texts))
    splits[shuffled[:held_out]] = "test"
    splits[shuffled[held_out : 2 * held_out]] = "valid"
    numbers: Counter[str] = Counter()
    queries = []
    for (text, family), split in zip(texts.items(), splits, strict=True):
        queries.append(Query(query_id=f"{family}-{numbers[family]:05d}", text=text, split=str(split)))
        numbers[family] += 1
    return queries
