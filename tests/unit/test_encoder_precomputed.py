"""Vectors from a table: what is in it comes back, and what is wrong with it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r4t.catalog.encoders import load_encoder
from r4t.errors import UserError

TEXTS = ["beef stew", "apple pie", "green salad"]
VECTORS = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)


def table(path: Path, texts: Any = TEXTS, vectors: Any = VECTORS, kind: pa.DataType | None = None) -> Path:
    rows = pa.array(list(vectors), kind or pa.list_(pa.float32()))
    pq.write_table(pa.table({"text": texts, "vector": rows}), path)
    return path


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64()), pa.list_(pa.float32(), 16)])
def test_a_text_gets_its_own_row_at_unit_length(tmp_path: Path, kind: pa.DataType) -> None:
    encoder = load_encoder("precomputed", None, table(tmp_path / "v.parquet", kind=kind))
    vectors = encoder.encode(["green salad", "", "beef stew", "green salad"])
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, [unit[2], np.eye(16)[0], unit[0], unit[2]], atol=1e-6)


def test_a_folder_is_all_its_files(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", TEXTS[:1], VECTORS[:1])
    table(tmp_path / "b.parquet", TEXTS[1:], VECTORS[1:])
    encoder = load_encoder("precomputed", 8, tmp_path)
    unit = VECTORS[:, :8] / np.linalg.norm(VECTORS[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(TEXTS), unit, atol=1e-6)
    before = encoder.fingerprint()
    table(tmp_path / "b.parquet", TEXTS[1:], VECTORS[1:] + 1)
    assert load_encoder("precomputed", 8, tmp_path).fingerprint() != before


def test_a_text_that_is_not_there_is_named(tmp_path: Path) -> None:
    encoder = load_encoder("precomputed", None, table(tmp_path / "v.parquet"))
    with pytest.raises(UserError, match=r"no vector for the text 'beef soup' \(2 of 3 texts.*add a row"):
        encoder.encode(["apple pie", "beef soup", "tea"])


SPOILT = VECTORS.copy()
SPOILT[1, 3] = np.nan


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"vectors": SPOILT}, r"1 vectors hold NaN or infinite values \(first: 'apple pie'\)"),
        ({"texts": ["a", "b", "a"]}, r"several vectors for the text 'a'"),
        ({"texts": ["a", None, "b"]}, r"rows without a text or a vector"),
        ({"vectors": [VECTORS[0], None, VECTORS[2]]}, r"rows without a text or a vector"),
        ({"texts": [1, 2, 3]}, r"column 'text' has type int64, it must be text"),
        ({"vectors": [VECTORS[0], VECTORS[1, :9], VECTORS[2]]}, r"have 9 to 16 columns: make them equally wide"),
        ({"vectors": [VECTORS[0, :15], VECTORS[0], [*VECTORS[2], 1.0]]}, r"have 15 to 17 columns"),
        ({"vectors": [[], [], []]}, r"have 0 to 0 columns"),
        ({"vectors": ["a", "b", "c"], "kind": pa.string()}, r"column 'vector' has type string"),
        ({"vectors": [[1, 2]] * 3, "kind": pa.list_(pa.int64())}, r"lists of floating-point numbers"),
        ({"texts": pa.array([], pa.string()), "vectors": []}, r"has no rows"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_encoder("precomputed", None, table(tmp_path / "v.parquet", **columns))


def test_a_path_that_is_no_table_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing at .*columns text, vector"):
        load_encoder("precomputed", None, tmp_path / "absent")
    with pytest.raises(UserError, match=r"holds no .parquet file"):
        load_encoder("precomputed", None, tmp_path)
    (tmp_path / "v.parquet").write_text("text,vector")
    with pytest.raises(UserError, match=r"is not a Parquet file"):
        load_encoder("precomputed", None, tmp_path / "v.parquet")
    pq.write_table(pa.table({"texts": TEXTS}), tmp_path / "w.parquet")
    with pytest.raises(UserError, match=r"no column 'text' \(did you mean 'texts'\?\)"):
        load_encoder("precomputed", None, tmp_path / "w.parquet")


def test_files_of_different_widths_and_a_width_too_many_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", TEXTS[:1], VECTORS[:1])
    with pytest.raises(UserError, match=r"has 16 columns, not 17: set encoder.dim to at most 16"):
        load_encoder("precomputed", 17, path)
    table(tmp_path / "b.parquet", TEXTS[1:], VECTORS[1:, :8])
    with pytest.raises(UserError, match=r"columns: make them equally wide"):
        load_encoder("precomputed", None, tmp_path)
