"""Several tables as one catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from r4t.catalog.load import load_catalog
from r4t.config import Config, load_config, parse_config
from r4t.errors import UserError
from r4t.evaluation.deviations import dataset_name

ITEMS = {"a": {"item_id": ["1", "2"], "text": ["red hat", "blue scarf"], "colour": ["red", "blue"]}}
ITEMS["b"] = {"item_id": ["1", "2", "3"], "title": ["green coat", "grey glove", "black belt"], "price": [1, 2, 3]}
SETS = {"label": ["one", "two", "three", "one"], "item_ids": [["1", "2"], ["2", "3"], ["1", "3"], ["3", "1"]]}
SETS |= {"split": ["train", "valid", "test", "train"], "ok": [True, True, True, False]}


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Any]:
    for name, table in (("a", ITEMS["a"]), ("b", ITEMS["b"]), ("sets", SETS)):
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
    second = {"items": str(tmp_path / "b.parquet"), "columns": {"text": "title"}}
    return {"a": {"items": str(tmp_path / "a.parquet")}, "b": second}


def config(sources: dict[str, Any], task: str = "oar", **data: Any) -> Config:
    return parse_config(
        {"task": task, "data": {"kind": "table", "families": "fashion", "n_queries": 20, "sources": sources, **data}}
    )


def test_items_of_all_sources_stand_in_one_database_under_their_sources_name(tables: dict[str, Any]) -> None:
    catalog = load_catalog(config(tables))
    assert [item.item_id for item in catalog.items] == ["a/1", "a/2", "b/1", "b/2", "b/3"]
    assert [item.text for item in catalog.items] == ["red hat", "blue scarf", "green coat", "grey glove", "black belt"]
    assert catalog.items[0].extra == {"colour": "red"}
    assert dataset_name(config(tables)) == "a+b"


def test_sets_name_the_items_of_their_own_source(tables: dict[str, Any], tmp_path: Path) -> None:
    own = {"sets": str(tmp_path / "sets.parquet"), "clean_column": "ok", "columns": {"text": "title", "title": "label"}}
    catalog = load_catalog(config({**tables, "b": {**tables["b"], **own}}, "wscr"))
    found = {query.text: [catalog.items[row].item_id for row in query.references] for query in catalog.queries}
    assert found == {"one": ["b/1", "b/2"], "two": ["b/2", "b/3"], "three": ["b/1", "b/3"]}
    assert catalog.dropped == {"sets whose column ok is false (data.clean_column)": 1}


def test_paths_of_sources_are_relative_to_the_file(tmp_path: Path) -> None:
    raw = {"data": {"kind": "table", "sources": {"a": {"items": "a.parquet"}}}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    assert load_config(tmp_path / "c.yaml").data.sources["a"].items == tmp_path / "a.parquet"


@pytest.mark.parametrize(
    ("data", "task", "message"),
    [
        ({"items": "x.parquet"}, "oar", "data.items and data.sources both name a catalogue"),
        ({"kind": "recipes"}, "oar", "set data.kind to 'table'"),
        ({"columns": {"text": "t"}}, "oar", "give each source its own columns"),
        ({"sources": {"a/b": {"items": "x"}}}, "oar", "non-empty without '/'"),
        ({}, "wscr", "needs the sets of at least one of data.sources"),
    ],
)
def test_what_contradicts_itself_is_refused(
    tables: dict[str, Any], data: dict[str, Any], task: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        config(data.pop("sources", tables), task, **data)


def test_vectors_come_from_all_sources_or_none(tables: dict[str, Any], tmp_path: Path) -> None:
    pq.write_table(pa.table({**ITEMS["a"], "v": [[1.0, 0.0], [0.0, 1.0]]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"some of data\.sources bring vectors"):
        load_catalog(config({**tables, "a": {**tables["a"], "columns": {"vector": "v"}}}))
