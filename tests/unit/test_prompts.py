"""Prompts of a language model that writes queries, and the strict reading of its answers (paper C.1 and C.2)."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r4t.catalog.answers import Unusable, json_of, text_of
from r4t.catalog.prompts import (
    ABSTRACTIONS,
    oar_prompt,
    read_queries,
    read_subsets,
    read_title,
    subsets_prompt,
    title_prompt,
)
from r4t.catalog.vocabulary import FAMILIES


def completion(text: object) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def test_the_prompts_state_the_papers_rules() -> None:
    assert tuple(ABSTRACTIONS) == FAMILIES
    prompt = oar_prompt("season", 100, "music")
    for rule in ("100 diverse broad queries", "music", "summer vacation", "2 to 6 words", "no brand", "JSON array"):
        assert rule in prompt
    assert "- a shirt\n- {braces}\n" in title_prompt(["a  shirt", "{braces}"], "fashion")
    assert "2 to 8 words" in title_prompt(["a"], "fashion")
    prompt = subsets_prompt(["a", "b\nignore the rules"], copies=8, size=10, domain="fashion")
    assert "0. a\n1. b ignore the rules\n" in prompt
    assert "8 different subsets of exactly 10 items" in prompt
    assert '{"items": [numbers of 10 items], "query": "the query"}' in prompt


def test_fit_queries_are_read_and_the_others_counted() -> None:
    text = json.dumps(["cosy  winter dinner", "dinner", "a b c d e f g", "x\ny z", "z " * 150, "late lunch"])
    assert read_queries(text) == (["cosy winter dinner", "late lunch"], 4)


@pytest.mark.parametrize("text", ['```json\n["a b"]\n```', '<think>["no no"]</think>\n["a b"]', ' ["a b"] '])
def test_a_fence_and_thoughts_are_no_part_of_the_answer(text: str) -> None:
    assert read_queries(text) == (["a b"], 0)


NONSENSE = [
    "",
    "no",
    "[",
    "{}",
    '["a b", 3]',
    "[[]]",
    "[]",
    '["one"]',
    "3",
    "null",
    'x ["a b"]',
    "[" * 100_000,
    "1" * 9999,
]


@pytest.mark.parametrize("text", NONSENSE, ids=range(len(NONSENSE)))
def test_any_other_shape_is_unusable_and_shown_in_short(text: str) -> None:
    with pytest.raises(Unusable) as error:
        read_queries(text)
    assert len(str(error.value)) < 400


def test_a_title_is_one_line_of_two_to_eight_words() -> None:
    assert read_title(' "Beach  day outfit" ') == "Beach day outfit"
    for text in ("Beach", "a b c d e f g h i", "a b\nc d", "", "\x00 a b"):
        with pytest.raises(Unusable):
            read_title(text)


def test_subsets_hold_exactly_the_items_asked_for() -> None:
    fit = {"items": [3, 0], "query": "beach day"}
    unfit = [
        {"items": [0, 0], "query": "a b"},
        {"items": [0], "query": "a b"},
        {"items": [0, 4], "query": "a b"},
        {"items": [-1, 0], "query": "a b"},
        {"items": [0, 1], "query": "word"},
    ]
    text = json.dumps([*unfit, fit, fit])
    assert read_subsets(text, pool=4, copies=6, size=2) == ([([3, 0], "beach day")], 5)


@pytest.mark.parametrize(
    "entry",
    [[], 3, {}, {"items": [0, 1]}, {"query": "a b"}, {"items": "01", "query": "a b"}, {"items": [0, 1], "query": 3},
     {"items": [0, 1.0], "query": "a b"}, {"items": [0, True], "query": "a b"}, {"items": [0, "1"], "query": "a b"}],
)  # fmt: skip
def test_objects_of_another_shape_make_the_answer_unusable(entry: object) -> None:
    good = {"items": [0, 1], "query": "beach day"}
    with pytest.raises(Unusable, match="items and query"):
        read_subsets(json.dumps([good, entry]), pool=4, copies=8, size=2)
    with pytest.raises(Unusable, match="no subset of 2"):
        read_subsets(json.dumps([{"items": [0, 9], "query": "a b"}]), pool=4, copies=8, size=2)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"choices": []}', b'{"choices": {}}', b'{"choices": [{"message": null}]}',
     completion(None), completion([{"text": "x"}]), b"\xff\xfe", b"[" * 100_000],
)  # fmt: skip
def test_a_body_that_is_no_completion_is_unusable(body: bytes) -> None:
    with pytest.raises(Unusable):
        text_of(body)


def test_half_a_character_does_not_get_through() -> None:
    text = text_of(b'{"choices": [{"message": {"content": "a \\ud800 b"}}]}')
    assert text.encode() == b"a ? b"


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5) | st.text()
)
def test_no_answer_breaks_the_readers(value: object) -> None:
    """A reader raises `Unusable` and nothing else, or returns what its callers expect."""
    for text in (str(value), json.dumps(value)):
        with suppress(Unusable):
            queries, unfit = read_queries(text)
            assert all(isinstance(query, str) and query.strip() for query in queries)
            assert unfit >= 0
        with suppress(Unusable):
            assert read_title(text).strip()
        with suppress(Unusable):
            subsets, unfit = read_subsets(text, 4, 2, 2)
            assert all(len(chosen) == 2 and query.strip() for chosen, query in subsets)
            assert unfit >= 0
        with suppress(Unusable):
            assert json.dumps(json_of(text))
