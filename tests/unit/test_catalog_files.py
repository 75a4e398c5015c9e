"""Tables in every format give the same rows, in file order, and an unreadable one says what to do."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r4t.catalog.files import read_table
from r4t.catalog.table import load_items, load_sets
from r4t.config import Data
from r4t.errors import UserError

ROWS = [
    {"item_id": "007", "text": "red, wide hat", "price": 1.5},
    {"item_id": "2020-05-01", "text": "two\nlines", "price": None},
    {"item_id": "NA", "text": 'a "b"', "price": 3.0},
]
CSV = '\ufeffitem_id,text,price\n007,"red, wide hat",1.5\n2020-05-01,"two\nlines",\nNA,"a ""b""",3.0\n'


def write_stream(path: Path, table: pa.Table) -> str:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return path.name


def write_saved(folder: Path, table: pa.Table, **state: Any) -> Path:
    """The layout of `datasets.Dataset.save_to_disk`: Arrow streams, and state.json which lists them in order."""
    folder.mkdir()
    parts = [table.slice(0, 2), table.slice(2)]
    files = [{"filename": write_stream(folder / f"data-{i:05d}-of-00002.arrow", part)} for i, part in enumerate(parts)]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_fingerprint": "x", "_split": None, **state}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def write_shards(folder: Path, table: pa.Table) -> Path:
    folder.mkdir()
    for number in (1, 0):
        pq.write_table(table.slice(2 * number, 2), folder / f"train-{number:05d}-of-00002.parquet")
    (folder / "README.md").write_text("about")
    return folder


def write(folder: Path, kind: str) -> Path:
    table = pa.Table.from_pylist(ROWS)
    path = folder / f"items.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "csv":
        path.write_text(CSV)
    elif kind == "csv.gz":
        path.write_bytes(gzip.compress(CSV.encode()))
    elif kind == "jsonl":
        path.write_text("\n\n".join(json.dumps(row) for row in ROWS))
    elif kind == "saved":
        write_saved(path, table)
    else:
        write_shards(path, table)
    return path


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz", "jsonl", "saved", "shards"])
def test_every_format_gives_the_same_rows_in_file_order(tmp_path: Path, kind: str) -> None:
    items = load_items(Data(kind="table", items=write(tmp_path, kind)))
    assert [(i.item_id, i.text, i.extra) for i in items] == [
        ("007", "red, wide hat", {"price": 1.5}),
        ("2020-05-01", "two lines", {"price": None}),
        ("NA", 'a "b"', {"price": 3.0}),
    ]


def test_lines_inside_quotes_may_cross_the_blocks_that_a_large_csv_is_read_in(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    line = "x\n"
    path.write_text("item_id,text\n" + "".join(f'{i},"{line * (i % 50 + 1)}"\n' for i in range(30_000)))
    items = load_items(Data(kind="table", items=path))
    assert [item.item_id for item in items] == [str(i) for i in range(30_000)]
    assert all(item.text == " ".join("x" * (i % 50 + 1)) for i, item in enumerate(items))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sets.csv", "title,item_ids,split\n2020-01-01,007 NA,train\n,NA,test\n"),
        ("sets.csv", 'title,item_ids,split\n2020-01-01,"[""007"", ""NA""]",train\n,NA,test\n'),
        (
            "sets.jsonl",
            '{"title":"2020-01-01","item_ids":["007","NA"],"split":"train"}\n{"item_ids":["NA"],"split":"test"}',
        ),
        ("sets.jsonl", '{"title":"2020-01-01","item_ids":"007 NA","split":"train"}\n{"item_ids":"NA","split":"test"}'),
    ],
)
def test_sets_in_text_files(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    sets, dropped = load_sets(Data(kind="table", items=Path("x"), sets=tmp_path / name), {"007", "NA"})
    assert [(s.title, s.split, s.item_ids) for s in sets] == [("2020-01-01", "train", ("007", "NA"))]
    assert dropped == {"sets without a title": 1}


def test_dates_inside_json_lists_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": ["2020-05-01", "2021-05-01"], "b": [[1, 2]], "c": 3}')
    assert read_table(path, "data.items").to_pylist() == [{"a": ["2020-05-01", "2021-05-01"], "b": [[1, 2]], "c": 3}]


def test_categories_of_pandas_are_text(tmp_path: Path) -> None:
    table = pa.table({"item_id": ["a", "b"], "text": pa.array(["x", "y"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "x.parquet")
    assert [i.text for i in load_items(Data(kind="table", items=tmp_path / "x.parquet"))] == ["x", "y"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.parquet", b"item_id,text\n", r"\(data.items\) cannot be read"),
        ("x.csv", b"item_id,text\na,b,c\n", r"\(data.items\) cannot be read .*Expected 2 columns, got 3"),
        ("x.csv", b"item_id,text\na,\xff\xfe\n", r"\(data.items\) cannot be read .*UTF8"),
        ("x.csv", b"", r"\(data.items\) cannot be read .*[Ee]mpty"),
        ("x.csv", b"item_id,text,text\na,b,c\n", r"two columns 'text': rename"),
        ("x.jsonl", b'{"item_id": "a"\n', r"\(data.items\) cannot be read .*JSON"),
        ("x.jsonl", b'{"item_id": "a", "text": "b"}\n{"item_id": 1, "text": "b"}', r"changed from string to number"),
        ("x.xlsx", b"", r"unknown ending '.xlsx': give Parquet \(.parquet\), CSV"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_items(Data(kind="table", items=tmp_path / name))


def test_a_folder_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    def reading(folder: Path) -> None:
        read_table(folder, "data.items")

    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"neither state.json nor .parquet files"):
        reading(empty)
    table = pa.Table.from_pylist(ROWS)
    with pytest.raises(UserError, match=r"call flatten_indices\(\)"):
        reading(write_saved(tmp_path / "selected", table, _indices_data_files=[{"filename": "indices.arrow"}]))
    with pytest.raises(UserError, match=r"state.json \(data.items\) lists no data files"):
        reading(write_saved(tmp_path / "none", table, _data_files=[]))
    lost = write_saved(tmp_path / "lost", table)
    (lost / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(UserError, match=r"no file at .*data-00001-of-00002.arrow"):
        reading(lost)
    several = tmp_path / "several"
    several.mkdir()
    (several / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    write_saved(several / "train", table)
    with pytest.raises(UserError, match=r"several datasets: give the path of one of its folders, train"):
        reading(several)
    shards = write_shards(tmp_path / "shards", table)
    pq.write_table(pa.table({"other": [1]}), shards / "zzz.parquet")
    with pytest.raises(UserError, match=r"\(data.items\) cannot be read"):
        reading(shards)
