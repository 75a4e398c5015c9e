"""From a configuration to a catalogue: what the filters leave, and where each row and set went."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import prepare
from jobs.run import Run
from r4t.catalog.dataset import Dataset, load_dataset
from r4t.catalog.encoders import load_encoder
from r4t.catalog.load import load_catalog
from r4t.catalog.source import joined
from r4t.config import Config, parse_config
from r4t.errors import UserError
from r4t.lineage import read_manifest

ITEMS = {
    "item_id": [*"abcdef"],
    "text": ["red hat", "Red  hat", " ", "blue scarf", "green coat", "grey glove"],
    "v": np.random.default_rng(0).normal(size=(6, 20)).tolist(),
}
SETS = {
    "title": ["one", "two", "three", "blank", "four"],
    "item_ids": [["a", "b"], ["d", "e"], ["a", "e", "c"], ["c", "f"], ["f"]],
    "split": ["train", "valid", "test", "train", "train"],
}


def config_of(folder: Path, task: str = "wscr", items: dict[str, Any] = ITEMS, **data: Any) -> Config:
    pq.write_table(pa.table(items), folder / "items.parquet")
    pq.write_table(pa.table(SETS), folder / "sets.parquet")
    paths = {"items": str(folder / "items.parquet"), "sets": str(folder / "sets.parquet")}
    raw = {"kind": "table", "families": "fashion", "n_queries": 20, **paths, **data}
    return parse_config({"task": task, "data": raw, "encoder": {"dim": 16}})


def prepared(folder: Path, config: Config) -> Dataset:
    run = Run(folder / "run", config)
    prepare.main(config, run)
    run.close()
    return load_dataset(folder / "run" / "prepare")


def test_an_item_without_a_text_leaves_its_sets_and_everything_is_counted(tmp_path: Path) -> None:
    catalog = load_catalog(config_of(tmp_path))
    assert [item.item_id for item in catalog.items] == [*"abdef"]
    assert {q.text: q.references for q in catalog.queries} == {"one": (0, 1), "two": (2, 3), "three": (0, 3)}
    assert catalog.dropped == {"items without a text": 1, "sets with too few items (data.min_set_size)": 2}
    with pytest.raises(UserError, match="none of 6 items has a text: fill in the text column"):
        load_catalog(config_of(tmp_path, items={**ITEMS, "text": ["", None, " ", "\u200b", "\t", "\n"]}))


def test_own_vectors_reach_the_dataset_and_repeated_texts_the_manifest(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, config_of(tmp_path, columns={"vector": "v"}))
    manifest = read_manifest(tmp_path / "run" / "prepare")
    assert manifest is not None
    assert manifest["item_vectors"] == "given"
    assert manifest["kept"] == {"items whose text repeats another's": 1}
    own = np.array(ITEMS["v"])[[0, 1, 3, 4, 5], :16]
    np.testing.assert_allclose(dataset.item_vectors, own / np.linalg.norm(own, axis=1, keepdims=True), atol=1e-6)
    wide = parse_config({**config_of(tmp_path, columns={"vector": "v"}).model_dump(), "encoder": {"dim": 32}})
    with pytest.raises(UserError, match=r"20 columns, encoder.dim is 32: set encoder.dim to at most 20"):
        prepared(tmp_path / "wide", wide)


def test_without_own_vectors_the_texts_are_encoded(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, config_of(tmp_path, "oar"))
    manifest = read_manifest(tmp_path / "run" / "prepare")
    assert manifest is not None
    assert manifest["item_vectors"] == "encoded"
    assert manifest["dropped"] == {"items without a text": 1}
    np.testing.assert_array_equal(dataset.item_vectors, load_encoder("wordllama", 16).encode(dataset.item_texts))
    assert len(dataset.queries) == 20


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (["a", "b"], "a, b"),
        ([" a\tb ", None, "", "  ", "c"], "a b, c"),
        (["\u200b", "\x00"], ""),
        ([], ""),
        (["!!!", "é"], "!!!, é"),
    ],
)
def test_parts_are_joined_without_blanks(parts: list[str | None], text: str) -> None:
    assert joined(parts) == text
