"""Items' own vectors: the same from every source, and unusable ones refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r4t.catalog.load import load_catalog
from r4t.catalog.table import load_items
from r4t.catalog.vectors import cut_to, read_vectors
from r4t.config import Config, Data, parse_config
from r4t.errors import UserError
from r4t.types import Floats

VECTORS = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
TEXTS = ["red hat", None, "hat", "blue wide hat", "green scarf"]


def config_of(path: Path, **data: Any) -> Config:
    return parse_config({"data": {"kind": "table", "items": str(path), "families": "fashion", "n_queries": 20, **data}})


def write(folder: Path, vectors: pa.Array | list[Any]) -> Path:
    path = folder / "items.parquet"
    pq.write_table(pa.table({"item_id": [*"abcde"], "text": TEXTS, "v": vectors}), path)
    return path


def typed(kind: str) -> pa.Array:
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(VECTORS.reshape(-1), 12)
    number = pa.float64() if kind == "double" else pa.float32()
    return pa.array(VECTORS.tolist(), pa.large_list(number) if kind == "large" else pa.list_(number))


@pytest.mark.parametrize("kind", ["list", "large", "fixed", "double"])
def test_a_column_of_lists_follows_its_items_through_the_filters(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, typed(kind))
    catalog = load_catalog(config_of(path, columns={"vector": "v"}, min_item_words=2))
    assert [item.item_id for item in catalog.items] == ["a", "d", "e"]
    assert catalog.item_vectors is not None
    assert catalog.item_vectors.dtype == np.float32
    np.testing.assert_array_equal(catalog.item_vectors, VECTORS[[0, 3, 4]])
    assert catalog.dropped == {"items without a text": 1, "items with too few words (data.min_item_words)": 1}
    assert "v" not in catalog.items[0].extra


def test_a_numpy_file_holds_the_vectors_in_file_order(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS.astype(np.float16))
    path = write(tmp_path, [0] * 5)
    catalog = load_catalog(config_of(path, item_vectors=str(tmp_path / "v.npy"), min_item_words=2))
    assert catalog.item_vectors is not None
    np.testing.assert_array_equal(catalog.item_vectors, VECTORS.astype(np.float16).astype(np.float32)[[0, 3, 4]])
    np.save(tmp_path / "v.npy", VECTORS[:-1])
    with pytest.raises(UserError, match=r"v.npy \(data.item_vectors\) has 4 rows for 5 items"):
        load_catalog(config_of(path, item_vectors=str(tmp_path / "v.npy")))


def test_json_lines_hold_vectors_and_without_any_there_are_none(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    rows = [{"item_id": i, "text": "x y", "v": VECTORS[i].tolist()} for i in range(5)]
    path.write_text("\n".join(map(json.dumps, rows)))
    catalog = load_catalog(config_of(path, columns={"vector": "v"}))
    np.testing.assert_allclose(catalog.item_vectors, VECTORS, rtol=1e-6)
    assert load_catalog(config_of(path)).item_vectors is None


def spoilt(row: int, value: Any) -> list[Any]:
    rows: list[Any] = VECTORS.tolist()
    rows[row] = value
    return rows


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (spoilt(3, [1.0] * 11), r"several widths \(row 0: 12, row 3: 11\)"),
        (spoilt(3, None), r"several widths \(row 0: 12, row 3: 0\)"),
        (spoilt(2, [0.0] * 12), r"column 'v': 1 of 5 vectors are zero \(first: row 2\)"),
        (spoilt(2, [float("nan")] + [1.0] * 11), r"1 of 5 vectors are NaN or infinite \(first: row 2\)"),
        (spoilt(2, [None] + [1.0] * 11), r"1 of 5 vectors are NaN or infinite \(first: row 2\)"),
        (spoilt(2, [float("inf")] + [1.0] * 11), r"1 of 5 vectors are NaN or infinite"),
        ([[], [], [], [], []], r"5 of 5 vectors are zero"),
        ([1.0] * 5, r"column 'v' has type double, it must be a list of numbers"),
        ([["x"]] * 5, r"column 'v' has type list<.*string>, it must be a list of numbers"),
    ],
)  # fmt: skip
def test_unusable_vectors_of_a_column_are_refused(tmp_path: Path, vectors: list[Any], message: str) -> None:
    data = Data(kind="table", items=write(tmp_path, vectors)).model_copy(
        update={"columns": Data().columns.model_copy(update={"vector": "v"})}
    )
    with pytest.raises(UserError, match=message):
        load_items(data)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[1, "x"]], dtype=object), r"not a NumPy array file of plain numbers"),
        (np.array([["x"]]), r"holds <U1 \(1, 1\): save one array of numbers"),
        (np.ones(3), r"holds float64 \(3,\)"),
        (np.zeros((2, 3)), r"2 of 2 vectors are zero"),
        (np.full((2, 3), np.nan), r"2 of 2 vectors are NaN"),
    ],
)
def test_unusable_numpy_files_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        read_vectors(tmp_path / "v.npy", "data.item_vectors")


def test_files_that_are_no_numpy_array_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file at .*v.npy: data.item_vectors"):
        read_vectors(tmp_path / "v.npy", "data.item_vectors")
    for content in (b"", b"not numpy"):
        (tmp_path / "v.npy").write_bytes(content)
        with pytest.raises(UserError, match=r"not a NumPy array file"):
            read_vectors(tmp_path / "v.npy", "data.item_vectors")
    np.savez(tmp_path / "v.npz", a=VECTORS)
    with pytest.raises(UserError, match=r"holds an archive"):
        read_vectors(tmp_path / "v.npz", "data.item_vectors")


def test_vectors_are_cut_and_get_unit_length() -> None:
    oracle: Floats = VECTORS[:, :8] / np.linalg.norm(VECTORS[:, :8].astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(cut_to(VECTORS, 8), oracle, atol=1e-6)
    with pytest.raises(UserError, match=r"12 columns, encoder.dim is 13: set encoder.dim to at most 12"):
        cut_to(VECTORS, 13)
    with pytest.raises(UserError, match=r"cutting the items' own vectors to encoder.dim=2 gave 1 vectors"):
        cut_to(np.array([[0, 0, 1]], dtype=np.float32), 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"item_vectors": "v.npy"}, "data.item_vectors needs items of your own"),
        ({"kind": "table", "items": "x", "item_vectors": "v", "columns": {"vector": "v"}}, "both give the vectors"),
    ],
)
def test_vectors_need_items_and_one_source(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_config({"data": data})
