"""Prompts and the strict parser."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from r4t.config import Config
from r4t.fanout import ANSWERS, build_prompt, format_answer, parse, read_list

TEXTS = st.lists(st.text(min_size=1).filter(lambda s: s.strip()), min_size=1, max_size=15)


@given(TEXTS, st.integers(1, 12))
def test_parse_reads_back_what_format_writes(written: list[str], k: int) -> None:
    fanout = parse(format_answer(written), k)
    expected = [text.strip() for text in written][:k]
    assert fanout.valid
    assert fanout.n_written == len(written)
    assert list(fanout.subqueries) == [expected[i % len(expected)] for i in range(k)]


@given(TEXTS)
def test_spans_cover_each_written_string(written: list[str]) -> None:
    text = "noise <queries>[]</queries> " + format_answer(written)
    fanout = parse(text, 20)
    assert [json.loads(text[a:b]).strip() for a, b in fanout.spans] == [w.strip() for w in written]


def test_c04_ten_sub_queries_by_default_and_configurable() -> None:
    assert Config().fanout.k == 10
    answer = format_answer([f"q{i}" for i in range(12)])
    assert len(parse(answer, Config().fanout.k).subqueries) == 10
    assert len(parse(answer, 3).subqueries) == 3


def test_fewer_than_k_are_cycled_and_duplicates_stay() -> None:
    assert parse(format_answer(["a", "b"]), 5).subqueries == ("a", "b", "a", "b", "a")
    assert parse(format_answer(["a", "a", "b"]), 3).subqueries == ("a", "a", "b")


def test_the_last_block_counts() -> None:
    assert parse('<queries>["old"]</queries> <queries>["new"]</queries>', 1).subqueries == ("new",)


def test_unparsable_answers_are_invalid() -> None:
    broken = [
        "",
        "hello",
        '<queries>["a"',
        "<queries></queries>",
        "<queries>{}</queries>",
        '<queries>["a", 3]</queries>',
    ]
    broken += [
        "<queries>[]</queries>",
        '<queries>["  "]</queries>',
        '<queries>["a" "b"]</queries>',
        "</queries><queries>",
    ]
    for text in broken:
        fanout = parse(text, 10)
        assert not fanout.valid, text
        assert fanout.subqueries == ()


def test_c14_prompts_of_the_two_tasks_differ_and_ask_for_json() -> None:
    oar = build_prompt("cosy winter dinner", style="paper", task="oar", domain="recipe", k=10)
    wscr = build_prompt("cosy winter dinner", style="paper", task="wscr", domain="recipe", k=10)
    assert oar != wscr
    for prompt in (oar, wscr):
        assert prompt.endswith("<broad_query>cosy winter dinner</broad_query>")
        assert "<think>" in prompt
        assert "<queries>" in prompt
        assert "up to 10" in prompt
        assert "recipe dataset" in prompt
    compact = build_prompt("cosy winter dinner", style="compact", task="oar", domain="recipe", k=10)
    assert compact == "<broad_query>cosy winter dinner</broad_query>"


PIECES = st.sampled_from(["<queries>", "</queries>", '["a"', ', "b c"', ', " "', "]", "{}", "3", "\\u00e9", "x", "[]"])


@given(st.lists(PIECES, max_size=8).map("".join) | TEXTS.map(format_answer), st.integers(1, 4))
def test_reading_a_list_finds_what_parsing_finds(text: str, k: int) -> None:
    status, subqueries = read_list(text, k)
    fanout = parse(text, k)
    assert (status == "ok") == fanout.valid
    assert tuple(subqueries) == fanout.subqueries
    assert status in ANSWERS


def test_an_invalid_answer_says_what_it_lacks() -> None:
    lacking = {
        "no_block": 'a <queries>["a"]',
        "not_json": "<queries>[a]</queries>",
        "not_strings": '<queries>["a", 3]</queries>',
        "empty": '<queries>["  "]</queries>',
    }
    assert {status: read_list(text, 2) for status, text in lacking.items()} == {s: (s, []) for s in lacking}
    assert (*lacking, "ok") == (*ANSWERS[1:], ANSWERS[0])


def test_half_a_character_is_replaced() -> None:
    """JSON can escape one half of a pair of surrogates, which neither an encoder nor Parquet takes."""
    (whole,) = parse('<queries>["a \\ud83c\\udf53"]</queries>', 1).subqueries
    (half,) = parse('<queries>["a \\ud83c b"]</queries>', 1).subqueries
    assert whole == "a \N{STRAWBERRY}"
    assert half == "a \N{REPLACEMENT CHARACTER} b"
