"""From items and titled sets to queries with references: staples, sizes, titles, splits."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r4t.catalog.source import SPLITS, Catalog, Item, ItemSet, compose, keep_long_names, normalise
from r4t.errors import UserError


def item(item_id: str) -> Item:
    return Item(item_id=item_id, text=item_id, name=item_id)


def item_set(title: str, split: str, *ids: str) -> ItemSet:
    return ItemSet(title=title, split=split, item_ids=ids)


REST = [item_set("kept valid", "valid", "a", "b"), item_set("kept test", "test", "a", "b")]


def composed(sets: list[ItemSet], *, max_share: float = 1.0, min_size: int = 1) -> Catalog:
    return compose(
        [item(i) for i in "abcdefghijklmnopqr"], sets, max_share=max_share, min_size=min_size, dropped=Counter()
    )


def test_sets_of_one_title_become_one_query_with_the_union_of_their_items() -> None:
    catalog = composed([item_set("Beach Day", "train", "a", "b"), item_set(" beach  day", "train", "b", "c"), *REST])
    query = catalog.queries[0]
    assert (query.text, query.references) == ("Beach Day", (0, 1, 2))
    assert catalog.dropped == {"sets merged into another set of the same title": 1}


def test_staples_are_counted_on_the_training_sets_alone() -> None:
    training = [item_set(f"set {i}", "train", "a", "bcdef"[i]) for i in range(5)]
    held_out = [item_set("v", "valid", "b", "c"), item_set("t", "test", "b", "d"), item_set("t2", "test", "b", "e")]
    catalog = composed([*training, *held_out], max_share=0.5)
    assert "a" not in [i.item_id for i in catalog.items]
    assert catalog.items[0].item_id == "b", "b is in every held-out set, but those do not count"
    assert catalog.queries[-1].references == (0, 3), "references are rows of the database without staples"


def test_sets_that_become_too_small_are_dropped() -> None:
    catalog = composed([item_set("one", "train", "a"), item_set("two", "train", "a", "b"), *REST], min_size=2)
    assert [q.text for q in catalog.queries] == ["two", "kept valid", "kept test"]
    assert catalog.dropped == {"sets with too few items (data.min_set_size)": 1}


def test_c34_a_title_of_two_splits_stays_in_the_held_out_one() -> None:
    sets = [item_set("Gym", "train", "a"), item_set("gym", "test", "b"), item_set("gym", "valid", "c"),
            item_set("x", "train", "a"), item_set("y", "valid", "a")]  # fmt: skip
    catalog = composed(sets)
    assert {q.text: (q.split, q.references) for q in catalog.queries}["gym"] == ("test", (1,))
    assert catalog.dropped == {"sets whose title is also in a more held-out split": 2}


def test_an_empty_split_names_the_fix() -> None:
    with pytest.raises(UserError, match=r"split test .*data.min_set_size"):
        composed([item_set("a", "train", "a"), item_set("b", "valid", "b")])


sets_strategy = st.lists(
    st.builds(
        item_set,
        st.text(alphabet="aB ", min_size=1, max_size=4).filter(str.strip),
        st.sampled_from(SPLITS),
        *[st.sampled_from("abcdef") for _ in range(3)],
    ),
    max_size=40,
)
# No item of these is a staple at a share of 0.34, so every split keeps a set.
ANCHORS = [
    *(item_set(f"anchor {ids}", "train", *ids) for ids in ("jkl", "mno", "pqr")),
    item_set("anchor valid", "valid", *"ghi"),
    item_set("anchor test", "test", *"ghi"),
]


@given(sets=sets_strategy, max_share=st.floats(0.34, 1.0), min_size=st.integers(1, 3))
def test_c34_splits_are_disjoint_and_every_set_is_accounted_for(
    sets: list[ItemSet], max_share: float, min_size: int
) -> None:
    sets = [*sets, *ANCHORS]
    catalog = composed(sets, max_share=max_share, min_size=min_size)
    keys = [normalise(query.text) for query in catalog.queries]
    assert len(keys) == len(set(keys)) == len({query.query_id for query in catalog.queries})
    accounted = {k: v for k, v in catalog.dropped.items() if not k.startswith("staple")}
    assert len(catalog.queries) + sum(accounted.values()) == len(sets)
    for query in catalog.queries:
        assert len(set(query.references)) == len(query.references) >= min_size
        assert query.split in {s.split for s in sets if normalise(s.title) == normalise(query.text)}


def test_short_names_leave_the_database() -> None:
    dropped: Counter[str] = Counter()
    items = [item("hat"), item("wool hat"), item("red wool hat")]
    assert [i.name for i in keep_long_names(items, 2, dropped)] == ["wool hat", "red wool hat"]
    assert sum(dropped.values()) == 1
    with pytest.raises(UserError, match=r"lower data.min_item_words"):
        keep_long_names(items, 9, dropped)
