"""No query text stands in two splits, and no recomposed set repeats held-out data."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r4t.catalog.leaks import check_leaks, without_held_out_sets, without_leaks
from r4t.catalog.source import SPLITS, normalise
from r4t.errors import UserError
from r4t.types import Query


def query(query_id: str, text: str, split: str, *rows: int, origin: str = "") -> Query:
    return Query(query_id=query_id, text=text, split=split, references=rows, origin=origin)


SETS = [
    query("a", "beach day", "train", 1, 2),
    query("b", "gym", "train", 3, 4),
    query("v", "office", "valid", 5, 6),
    query("t", "wedding", "test", 7, 8),
]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_text_of_two_splits_is_refused_whatever_its_case_and_spaces(split: str) -> None:
    with pytest.raises(UserError, match=rf"1 query texts .*'beach day' in train, {split}"):
        check_leaks([*SETS, query("x", " Beach  DAY ", split, 9)])


@pytest.mark.parametrize(
    "leak",
    [
        query("c", "new", "test", 1, 9, origin="a"),
        query("c", "new", "train", 1, 9, origin="v"),
        query("c", "new", "train", 8, 7, origin="a"),
        query("c", "new", "train", 6, 5, origin="a"),
    ],
)
def test_a_recomposed_set_from_or_of_held_out_data_is_refused(leak: Query) -> None:
    check_leaks([*SETS, query("c", "new", "train", 1, 9, origin="a")])
    with pytest.raises(UserError, match=r"'new' .*repeats held-out data"):
        check_leaks([*SETS, leak])


def test_a_training_set_with_a_held_out_sets_items_is_left_out_and_counted() -> None:
    twins = [query("c", "same items as a test set", "train", 8, 7), query("d", "and a valid one", "train", 5, 6)]
    part = query("e", "a part of a test set", "train", 7)
    dropped: Counter[str] = Counter()
    assert without_held_out_sets([*SETS, *twins, part], dropped) == [*SETS, part]
    assert dropped == {"sets left out of training that hold exactly the items of a held-out set": 2}
    with pytest.raises(UserError, match=r"'same items as a test set' \(c\) repeats held-out data"):
        check_leaks([*SETS, *twins])


def test_what_would_leak_or_repeat_is_left_out_and_counted() -> None:
    made = [
        query("c0", "beach day with 1", "train", 1, 9, origin="a"),
        query("c1", "Office ", "train", 1, 10, origin="a"),
        query("c2", "beach", "train", 8, 7, origin="a"),
        query("c3", "beach", "train", 4, 3, origin="a"),
        query("c4", "beach", "train", 9, 1, origin="a"),
    ]
    dropped: Counter[str] = Counter()
    assert without_leaks(made, SETS, dropped) == made[:1]
    assert dropped == {
        "recomposed sets with the text of a held-out query": 1,
        "recomposed sets with exactly the items of a held-out set": 1,
        "recomposed sets with exactly the items of another training set": 2,
    }


texts = st.text(alphabet="aB ", min_size=1, max_size=3).filter(str.strip)
rows = st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True)


@given(
    sets=st.dictionaries(texts.map(normalise), st.tuples(st.sampled_from(SPLITS), rows), max_size=6),
    made=st.lists(st.tuples(texts, rows), max_size=12),
)
def test_what_is_kept_always_passes_the_check(
    sets: dict[str, tuple[str, list[int]]], made: list[tuple[str, list[int]]]
) -> None:
    queries = [query("origin", "origin", "train", 99)]
    queries += [query(f"q{i}", text, split, *rows) for i, (text, (split, rows)) in enumerate(sets.items())]
    copies = [query(f"c{i}", text, "train", *rows, origin="origin") for i, (text, rows) in enumerate(made)]
    clean = without_held_out_sets(queries, Counter())
    dropped: Counter[str] = Counter()
    kept = without_leaks(copies, clean, dropped)
    check_leaks([*clean, *kept])
    assert len(kept) + sum(dropped.values()) == len(made)
