"""The user's own queries: what is read, what is counted, and one clear error per mistake."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from r4t.catalog.load import load_catalog
from r4t.catalog.own_queries import load_queries
from r4t.catalog.source import normalise, split_of
from r4t.config import parse_config
from r4t.errors import UserError

SPLIT = "text,split,query_id\nwinter look,train,q1\nGym,valid,q2\n beach  day ,test,7\n"


def queries_of(folder: Path, text: str, dropped: Counter[str] | None = None) -> list[Any]:
    (folder / "queries.csv").write_text(text)
    return load_queries(folder / "queries.csv", 0, Counter() if dropped is None else dropped)


def test_queries_keep_their_split_and_id(tmp_path: Path) -> None:
    assert [(q.query_id, q.text, q.split, q.references) for q in queries_of(tmp_path, SPLIT)] == [
        ("q1", "winter look", "train", ()), ("q2", "Gym", "valid", ()), ("7", "beach day", "test", ()),
    ]  # fmt: skip


def test_without_a_split_the_text_decides(tmp_path: Path) -> None:
    queries = queries_of(tmp_path, "text\n" + "\n".join(f"Query  {i}" for i in range(100)))
    assert [q.split for q in queries] == [split_of(normalise(q.text), 0) for q in queries]
    assert queries[3].query_id == "query-00003"
    assert {q.split for q in queries} == {"train", "valid", "test"}


def test_blank_and_repeated_queries_are_counted(tmp_path: Path) -> None:
    dropped: Counter[str] = Counter()
    queries = queries_of(tmp_path, SPLIT + "GYM ,train,q4\n ,train,q5\n", dropped)
    assert [q.split for q in queries] == ["train", "valid", "test"], "the first of equal texts stays"
    assert dropped == {"queries whose text repeats another's": 1, "queries without a text": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("query\na\n", r"no column 'text', see data.queries: its columns are query"),
        ("text,split\na,dev\n", r"row 0 has split 'dev'"),
        ("text,split\na,\n", r"row 0 has no 'split'"),
        ("text,query_id,split\na,1,train\nb,1,train\n", r"duplicate values of 'query_id'"),
        ("text,split\na,train\nb,test\n", r"no queries left in split valid \(2 in all\): add queries there"),
    ],
)
def test_a_mistake_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        queries_of(tmp_path, text)


def test_the_configuration_takes_them_instead_of_generated_ones(tmp_path: Path) -> None:
    queries_of(tmp_path, SPLIT)
    raw = {"data": {"queries": str(tmp_path / "queries.csv")}}
    assert [q.text for q in load_catalog(parse_config(raw)).queries] == ["winter look", "Gym", "beach day"]
    with pytest.raises(UserError, match=r"data.queries are for task 'oar'"):
        parse_config({**raw, "task": "wscr"})
