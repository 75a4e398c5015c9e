from hypothesis import given
from hypothesis import strategies as st

from r4t.fanout import parse
from r4t.sets.reground import answer_of

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
    st.sampled_from(["<queries>", "</queries>", 'a "quoted" <b>', "back\\slash<", "\\u003c", '"], ["']),
).filter(lambda text: bool(text.strip()))


@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_any_stored_subqueries_are_read_back_from_their_answer(texts: list[str]):
    stripped = [text.strip() for text in texts]
    fanout = parse(f"<think>{stripped[0]}</think>" + answer_of(stripped), len(stripped))
    assert fanout.valid
    assert list(fanout.subqueries) == stripped
