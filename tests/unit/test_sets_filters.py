"""Filters of training sets against slow, plain oracles."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from r4t.config import Sets
from r4t.sets.filters import best_share, capped, filter_sets, without_near_duplicates

ROWS = st.lists(st.integers(0, 7), min_size=3, max_size=3)
ANSWERS = st.lists(
    st.tuples(st.integers(0, 3), ROWS, st.sampled_from([0.1, 0.2, 0.3, 0.5]), st.booleans()), min_size=1, max_size=25
)
Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def columns(answers: list[tuple[int, list[int], float, bool]]) -> Columns:
    """query, sample, rows, reward, valid; samples count up within each query."""
    seen: Counter[int] = Counter()
    sample = []
    for query, *_ in answers:
        sample.append(seen[query])
        seen[query] += 1
    query, rows, reward, valid = zip(*answers, strict=True)
    return (
        np.array(query, np.int32),
        np.array(sample, np.int32),
        np.array(rows, np.int32),
        np.array(reward, np.float32),
        np.array(valid),
    )


@given(ANSWERS, st.sampled_from([0.2, 1 / 3, 0.5, 0.6, 2 / 3, 1.0]))
def test_near_duplicates_are_those_like_an_earlier_kept_set_of_their_query(answers: list, threshold: float):
    query, sample, rows, reward, among = columns(answers)
    kept: list[int] = []
    for i in sorted(np.flatnonzero(among), key=lambda i: (-reward[i], sample[i])):
        mine = set(rows[i].tolist())
        others = [set(rows[j].tolist()) for j in kept if query[j] == query[i]]
        if not any(len(mine & other) / len(mine | other) >= threshold for other in others):
            kept.append(i)
    found = without_near_duplicates(query, sample, rows, reward, among, threshold)
    assert np.flatnonzero(found).tolist() == sorted(kept)


@given(ANSWERS, st.integers(1, 4))
def test_the_cap_keeps_the_best_sets_whose_items_have_room(answers: list, cap: int):
    query, sample, rows, reward, among = columns(answers)
    uses: Counter[int] = Counter()
    kept = []
    for i in sorted(np.flatnonzero(among), key=lambda i: (-reward[i], query[i], sample[i])):
        mine = set(rows[i].tolist())
        if max(uses[item] for item in mine) < cap:
            uses.update(mine)
            kept.append(i)
    found = capped(query, sample, rows, reward, among, cap)
    assert np.flatnonzero(found).tolist() == sorted(kept)
    in_sets = Counter(item for i in np.flatnonzero(found) for item in set(rows[i].tolist()))
    assert max(in_sets.values(), default=0) <= cap
    for i in np.flatnonzero(among & ~found):  # what went had no room even in the end
        assert any(in_sets[item] == cap for item in rows[i].tolist())


@given(ANSWERS, st.sampled_from([0.1, 0.25, 0.5, 1.0]))
def test_the_best_share_of_each_query(answers: list, share: float):
    query, _, _, reward, valid = columns(answers)
    expected = []
    for one in set(query.tolist()):
        own = sorted((i for i in range(len(query)) if query[i] == one and valid[i]), key=lambda i: -reward[i])
        expected += own[: int(np.ceil(share * len(own)))]
    assert np.flatnonzero(best_share(query, reward, valid, share)).tolist() == sorted(expected)


@given(ANSWERS, st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_every_answer_is_kept_or_counted_once(answers: list, a: bool, b: bool, c: bool, d: bool):
    on = {"min_reward": 0.2, "top_fraction": 0.5, "near_duplicate": 0.5, "item_cap": 2}
    chosen = {name: value for (name, value), used in zip(on.items(), (a, b, c, d), strict=True) if used}
    data = columns(answers)
    found = filter_sets(*data, Sets.model_validate(chosen))
    assert list(found.removed) == ["unparsable", *chosen]
    assert found.kept.sum() + sum(found.removed.values()) == len(answers)
    assert not (found.kept & ~data[4]).any()
    if not chosen:
        assert np.array_equal(found.kept, data[4])


def test_the_order_of_the_answers_does_not_matter():
    rng = np.random.default_rng(0)
    answers = [(int(q), r.tolist(), float(w), True) for q, r, w in zip(
        rng.integers(0, 5, 60), rng.integers(0, 9, (60, 3)), rng.random(60), strict=True)]  # fmt: skip
    data = columns(answers)
    both = Sets(near_duplicate=0.5, item_cap=4)
    kept = filter_sets(*data, both).kept
    mixed = rng.permutation(60)
    again = filter_sets(*(column[mixed] for column in data), both).kept
    assert 0 < kept.sum() < 60
    assert np.array_equal(again, kept[mixed])
