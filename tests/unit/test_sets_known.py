"""What scorers remember of sub-queries changes nothing but the work."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.catalog.encoders import Encoder, load_encoder
from r4t.catalog.index import AnnIndex, ExactIndex, build_index
from r4t.config import parse_config
from r4t.sets.known import KnownTexts

NAMES = [
    f"{kind} {dish}" for kind in ("apple", "carrot", "lemon", "walnut") for dish in ("soup", "cake", "salad", "pie")
]
ROW = 64 * 4 + 2 * 12  # bytes of one text: its vector, and two items with their cosines


class Counting(ExactIndex):
    """An index that notes how many queries each search has."""

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__(vectors)
        self.asked: list[int] = []

    def search(self, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append(len(queries))
        return super().search(queries, n)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("wordllama", 64)


@given(
    calls=st.lists(st.lists(st.sampled_from(NAMES), unique=True, max_size=12), min_size=1, max_size=6),
    kept=st.integers(0, 20),
)
@settings(max_examples=100)
def test_every_call_gives_the_bits_of_a_first_one(encoder: Encoder, calls: list[list[str]], kept: int):
    index = ExactIndex(encoder.encode(NAMES[::2]))
    known = KnownTexts(encoder, index, 2, room=kept * ROW)
    for texts in calls:
        for found, expected in zip(known(texts), KnownTexts(encoder, index, 2, room=0)(texts), strict=True):
            assert found.dtype == expected.dtype
            assert np.array_equal(found, expected)


def test_each_text_is_searched_once_until_the_room_is_full(encoder: Encoder):
    index = Counting(encoder.encode(NAMES))
    known = KnownTexts(encoder, index, 2, room=3 * ROW)
    known(NAMES[:2])
    known(NAMES[1:5])  # one is known, one of the three new ones is kept
    known(NAMES[:5])
    assert index.asked == [2, 3, 2]


def test_nothing_is_kept_where_the_others_of_a_call_could_change_a_result(encoder: Encoder):
    vectors = encoder.encode(NAMES)
    approximate = build_index(vectors, parse_config({"index": {"kind": "hnsw"}}).index, vectors)
    assert isinstance(approximate, AnnIndex)
    together = load_encoder("wordllama", 64)
    together.alone = False
    for used, index in ((encoder, approximate), (together, ExactIndex(vectors))):
        known = KnownTexts(used, index, 2)
        known(NAMES)
        assert known._place == {}
