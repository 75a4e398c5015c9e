"""A catalogue in two Parquet files: what is read, and one clear error per mistake."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r4t.catalog.parquet import load_items, load_sets
from r4t.config import Data
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
    return Data(kind="parquet", items=folder / "items.parquet", sets=folder / "sets.parquet")


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
        (changed(ITEMS, text=None, Text=[*"xyz"]), r"no column 'text' \(did you mean 'Text'\?\): .* price, Text"),
        (changed(ITEMS, item_id=None), r"no column 'item_id'.*its columns are text, price"),
        (changed(ITEMS, text=[1, 2, 3]), r"column 'text' has type int64, it must be text"),
        (changed(ITEMS, item_id=[1.5, 2.5, 3.5]), r"column 'item_id' has type double"),
        (changed(ITEMS, text=["x", None, "z"]), r"row 1 has no 'text'"),
        (changed(ITEMS, text=["x", "y", "  "]), r"row 2 has no 'text'"),
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
        (changed(SETS, split=None), r"no column 'split'.*its columns are set_id, title, item_ids, clean"),
        (changed(SETS, item_ids=["a", "b", "c", "a"]), r"column 'item_ids' has type string, .* a list of item ids"),
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


def test_a_missing_or_unreadable_file_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file at .*nowhere.parquet: data.items"):
        load_items(Data(kind="parquet", items=tmp_path / "nowhere.parquet"))
    (tmp_path / "items.parquet").write_text("item_id,text\n")
    with pytest.raises(UserError, match=r"\(data.items\) is not a Parquet file"):
        load_items(Data(kind="parquet", items=tmp_path / "items.parquet"))
    with pytest.raises(UserError, match=r"'wscr' needs data.sets"):
        load_sets(Data(kind="parquet", items=tmp_path / "items.parquet"), set())
