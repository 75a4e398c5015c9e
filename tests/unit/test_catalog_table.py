"""A catalogue in two tables: what is read, and one clear error per mistake."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r4t.catalog.columns import ids_of
from r4t.catalog.source import normalise, split_of
from r4t.catalog.table import load_items, load_sets
from r4t.config import Columns, Data
from r4t.errors import UserError

ITEMS = {"item_id": ["a", "b", "c"], "text": ["red hat", "blue hat", "scarf"], "price": [1.0, 2.0, None]}
SETS = {
    "set_id": ["1", "2", "3", "4"],
    "title": ["winter", "summer", None, "gym"],
    "item_ids": [["a", "b", "a"], ["b"], ["c"], ["a", "c"]],
    "split": ["train", "valid", "test", "test"],
    "clean": [True, True, True, False],
}


def write(folder: Path, items: dict[str, Any] = ITEMS, sets: dict[str, Any] = SETS) -> Data:
    pq.write_table(pa.table(items), folder / "items.parquet")
    pq.write_table(pa.table(sets), folder / "sets.parquet")
    return Data(kind="table", items=folder / "items.parquet", sets=folder / "sets.parquet")


def changed(columns: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {name: values for name, values in {**columns, **changes}.items() if values is not None}


def test_items_keep_their_order_and_further_columns(tmp_path: Path) -> None:
    items = load_items(write(tmp_path))
    assert [(i.item_id, i.text, i.name, i.extra) for i in items] == [
        ("a", "red hat", "red hat", {"price": 1.0}),
        ("b", "blue hat", "blue hat", {"price": 2.0}),
        ("c", "scarf", "scarf", {"price": None}),
    ]


def test_a_name_column_is_shown_instead_of_the_text(tmp_path: Path) -> None:
    items = load_items(write(tmp_path, items={**ITEMS, "name": ["Hat", None, "Scarf"]}))
    assert [i.name for i in items] == ["Hat", "blue hat", "Scarf"]
    assert "name" not in items[0].extra


def test_sets_without_a_title_are_counted_and_repeated_items_counted_once(tmp_path: Path) -> None:
    sets, dropped = load_sets(write(tmp_path), {"a", "b", "c"})
    assert [(s.title, s.split, s.item_ids) for s in sets] == [
        ("winter", "train", ("a", "b")), ("summer", "valid", ("b",)), ("gym", "test", ("a", "c")),
    ]  # fmt: skip
    assert dropped == {"sets without a title": 1}


def test_the_clean_column_filters(tmp_path: Path) -> None:
    data = write(tmp_path).model_copy(update={"clean_column": "clean"})
    sets, dropped = load_sets(data, {"a", "b", "c"})
    assert [s.title for s in sets] == ["winter", "summer"]
    assert dropped["sets whose column clean is false (data.clean_column)"] == 1


def test_integer_ids_join_with_integer_references(tmp_path: Path) -> None:
    data = write(tmp_path, changed(ITEMS, item_id=[1, 2, 3]), changed(SETS, item_ids=[[1], [2], [3], [1, 2]]))
    sets, _ = load_sets(data, {i.item_id for i in load_items(data)})
    assert sets[-1].item_ids == ("1", "2")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (changed(ITEMS, text=None, Text=[*"xyz"]), r"\(did you mean 'Text'\?\), see data.columns.text: .* price, Text"),
        (changed(ITEMS, item_id=None), r"no column 'item_id'.*its columns are text, price"),
        (changed(ITEMS, text=[1, 2, 3]), r"column 'text' has type int64, it must be text"),
        (changed(ITEMS, text=[[1], [2], [3]]), r"column 'text' has type list<.*, it must be text or a list of texts"),
        (changed(ITEMS, name=[1, 2, 3]), r"column 'name' has type int64, it must be text"),
        (changed(ITEMS, item_id=[1.5, 2.5, 3.5]), r"'item_id' has type double, it must be text or whole numbers"),
        (changed(ITEMS, item_id=[["a"], ["b"], ["c"]]), r"column 'item_id' has type list<"),
        (changed(ITEMS, item_id=[True, False, None]), r"column 'item_id' has type bool"),
        (changed(ITEMS, item_id=["a", "b", "a"]), r"1 duplicate values of 'item_id' \(first: 'a'\)"),
        (changed(ITEMS, item_id=["a", None, "c"]), r"row 1 has no 'item_id'"),
        ({"item_id": pa.array([], pa.string()), "text": pa.array([], pa.string())}, r"has no rows.*data.items"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_items_is_one_clear_error(tmp_path: Path, items: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_items(write(tmp_path, items=items))


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (changed(SETS, title=None), r"no column 'title'.*its columns are set_id, item_ids, split, clean"),
        (changed(SETS, item_ids=[[1.5], [2.0], [3.0], [1.0]]), r"'item_ids' has type list<.* a list of item ids"),
        (changed(SETS, item_ids=["a b", "zzz", "c", "a"]), r"set 2 names item 'zzz', .*at ' ', data.id_separator"),
        (changed(SETS, item_ids=["a b", "[1.5]", "c", "a"]), r"item ids of set 2 cannot be read \(1.5 is no id"),
        (changed(SETS, item_ids=["a b", "[[", "c", "a"]), r"item ids of set 2 cannot be read"),
        (changed(SETS, clean=None), r"no column 'clean', see data.clean_column"),
        (changed(SETS, item_ids=[["a"], ["zzz"], ["c"], ["a"]]), r"set 2 names item 'zzz', which data.items"),
        (changed(SETS, item_ids=[["a"], None, ["c"], ["a"]]), r"row 1 has no 'item_ids'"),
        (changed(SETS, set_id=["1", "1", "3", "4"]), r"duplicate values of 'set_id'"),
        (changed(SETS, split=["train", "dev", "test", "test"]), r"set 2 has split 'dev': use .*valid, test"),
        (changed(SETS, clean=["yes", "no", "yes", "no"]), r"column 'clean' has type string, it must be true or false"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_sets_is_one_clear_error(tmp_path: Path, sets: dict[str, Any], message: str) -> None:
    data = write(tmp_path, sets=sets).model_copy(update={"clean_column": "clean"})
    with pytest.raises(UserError, match=message):
        load_sets(data, {"a", "b", "c"})


def test_a_missing_file_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file at .*nowhere.parquet: data.items"):
        load_items(Data(kind="table", items=tmp_path / "nowhere.parquet"))
    with pytest.raises(UserError, match=r"'wscr' needs data.sets"):
        load_sets(Data(kind="table", items=tmp_path / "items.parquet"), set())


def test_several_columns_make_one_text_and_lists_are_joined(tmp_path: Path) -> None:
    items = {
        "asin": [7, 8, 9],
        "title": ["Red  hat", None, " Scarf\n"],
        "tags": [["warm", "", None, "wool "], ["blue"], None],
        "vendor": ["x", "y", "z"],
        "text": ["other", "other", "other"],
    }
    columns = Columns(item_id="asin", text=("title", "tags"), name="title")
    found = load_items(write(tmp_path, items=items).model_copy(update={"columns": columns}))
    assert [(i.item_id, i.text, i.name) for i in found] == [
        ("7", "Red hat, warm, wool", "Red hat"), ("8", "blue", "blue"), ("9", "Scarf", "Scarf"),
    ]  # fmt: skip
    assert found[0].extra == {"tags": ["warm", "", None, "wool "], "vendor": "x"}, "what is not mapped is kept"


@pytest.mark.parametrize("blank", [None, "", " \t", "\u200b", "\x00"])
def test_an_item_with_nothing_to_read_has_an_empty_text(tmp_path: Path, blank: str | None) -> None:
    items = load_items(write(tmp_path, items={**ITEMS, "text": ["x", blank, "!!!"]}))
    assert [i.text for i in items] == ["x", "", "!!!"]


def test_columns_under_other_names_are_mapped(tmp_path: Path) -> None:
    sets = {"no": [1, 2], "what": ["Winter", "gym"], "things": [["a"], ["b"]], "part": ["test", "train"]}
    columns = Columns(set_id="no", title="what", item_ids="things", split="part")
    data = write(tmp_path, sets=sets).model_copy(update={"columns": columns})
    found, _ = load_sets(data, {"a", "b"})
    assert [(s.title, s.split, s.item_ids) for s in found] == [("Winter", "test", ("a",)), ("gym", "train", ("b",))]
    with pytest.raises(UserError, match=r"no column 'prat' \(did you mean 'part'\?\), see data.columns.split"):
        load_sets(data.model_copy(update={"columns": columns.model_copy(update={"split": "prat"})}), {"a", "b"})


def test_without_a_split_the_title_decides_and_without_an_id_the_row(tmp_path: Path) -> None:
    titles = [f"Title  {i // 2}" if i % 2 else f"title {i // 2} " for i in range(200)]
    data = write(tmp_path, sets={"title": titles, "item_ids": [["a"]] * 200}).model_copy(update={"seed": 3})
    found, _ = load_sets(data, {"a"})
    assert [s.split for s in found] == [split_of(normalise(title), 3) for title in titles]
    assert {s.split for s in found} == {"train", "valid", "test"}
    assert all(found[i].split == found[i + 1].split for i in range(0, 200, 2)), "case and spaces do not matter"
    pq.write_table(pa.table({"title": ["x", "y"], "item_ids": [["a"], ["q"]]}), tmp_path / "sets.parquet")
    with pytest.raises(UserError, match="the set in row 1 names item 'q'"):
        load_sets(data, {"a"})


@pytest.mark.parametrize(
    ("cell", "separator", "ids"),
    [
        ("a b", " ", ("a", "b")),
        ("  a   b a ", " ", ("a", "b")),
        ("a | b|", "|", ("a", "b")),
        ('["a", 2, "a"]', " ", ("a", "2")),
        ("[]", " ", ()),
        ([1, 2], "|", ("1", "2")),
    ],
)
def test_ids_in_text_are_a_json_list_or_separated(cell: Any, separator: str, ids: tuple[str, ...]) -> None:
    assert ids_of(cell, separator) == ids


@pytest.mark.parametrize("cell", ["[1.5]", "[true]", '[["a"]]', "[null]", "[a]", '["a"', [1.5], [None]])
def test_an_id_that_is_neither_text_nor_whole_is_refused(cell: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own error is one too
        ids_of(cell, " ")


def test_many_equal_rows_take_seconds_and_a_repeated_id_is_found_among_them(tmp_path: Path) -> None:
    n = 200_000
    data = write(tmp_path, items={"item_id": np.arange(n), "text": ["the same text"] * n})
    start = time.process_time()
    assert len(load_items(data)) == n
    assert time.process_time() - start < 6, "a million rows must not take more than half a minute"
    pq.write_table(pa.table({"item_id": np.zeros(n, dtype=int), "text": ["the same text"] * n}), data.items)
    start = time.process_time()
    with pytest.raises(UserError, match=r"1 duplicate values of 'item_id' \(first: 0\)"):
        load_items(data)
    assert time.process_time() - start < 6
