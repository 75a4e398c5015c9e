"""Approximate indexes: measured before use, exact in what they return, refused when their file is not theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import flip

from r4t.catalog.index import AnnIndex, ExactIndex, build_index, load_index, open_index, recall, save_index, write_index
from r4t.catalog.index.build import build_ann
from r4t.config import Index as Settings
from r4t.config import parse_config
from r4t.errors import UserError
from r4t.lineage import read_json, write_json
from r4t.types import Floats

KINDS: dict[str, dict[str, Any]] = {
    "hnsw": {"m": 16, "ef": 64},
    "ivf_flat": {"lists": 40, "probes": 12},
    "ivf_pq": {"lists": 20, "probes": 10, "pq_bytes": 8, "rerank": 8},
}


def of_kind(kind: str, **more: Any) -> Settings:
    return parse_config({"index": {"kind": kind, **KINDS[kind], **more}}).index


def clustered(rows: int, seed: int, dim: int = 16) -> Floats:
    centres = np.random.default_rng(0).standard_normal((30, dim))
    rng = np.random.default_rng(seed)
    vectors = (centres[rng.integers(30, size=rows)] + 0.4 * rng.standard_normal((rows, dim))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


ITEMS, QUERIES = clustered(2000, 1), clustered(200, 2)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_recall_is_measured_and_scores_are_exact(kind: str) -> None:
    index, quality = build_ann(ITEMS, of_kind(kind), QUERIES)
    exact = ExactIndex(ITEMS)
    assert quality.recall == recall(index, exact, QUERIES, 10) > 0.9
    assert (quality.depth, quality.queries) == (10, len(QUERIES))
    scores, rows = index.search(QUERIES, 10)
    everything, order = exact.search(QUERIES, len(ITEMS))
    by_row = np.take_along_axis(everything, np.argsort(order, axis=1), axis=1)
    np.testing.assert_array_equal(scores, np.take_along_axis(by_row, rows, axis=1))
    assert (np.diff(scores, axis=1) <= 0).all()


def test_recall_counts_what_is_found() -> None:
    exact, half = ExactIndex(ITEMS), ExactIndex(ITEMS)
    nearest = half.search(QUERIES[:1], 10)[1][0]
    half.remove(nearest[:4])
    assert recall(half, exact, QUERIES[:1], 10) == pytest.approx(0.6)


def test_an_index_below_the_floor_is_refused() -> None:
    with pytest.raises(UserError, match=r"below index\.recall_floor = 0\.99: raise index\.probes"):
        build_index(ITEMS, of_kind("ivf_flat", probes=1, recall_floor=0.99), QUERIES)


def test_the_default_is_exact() -> None:
    assert isinstance(build_index(ITEMS, parse_config({}).index, QUERIES), ExactIndex)


def test_every_query_gets_n_items_also_from_cells_that_hold_fewer() -> None:
    index, _ = build_ann(ITEMS[:300], of_kind("ivf_flat", lists=100, probes=1), QUERIES)
    scores, rows = index.search(QUERIES, 50)
    assert rows.min() >= 0
    assert all(len(set(line)) == 50 for line in rows.tolist())
    few = (index.faiss.search(QUERIES, 50, params=index._parameters(50))[1] >= 0).sum(axis=1) < 50
    assert few.any()
    expected = ExactIndex(ITEMS[:300]).search(QUERIES, 50)
    np.testing.assert_array_equal(rows[few], expected[1][few])
    np.testing.assert_array_equal(scores[few], expected[0][few])


def test_added_items_are_found_and_removed_ones_never_again(kind: str) -> None:
    index, _ = build_ann(ITEMS, of_kind(kind), QUERIES)
    more = clustered(50, 3)
    rows = index.add(more)
    assert rows.tolist() == list(range(2000, 2050))
    np.testing.assert_array_equal(index.search(more, 1)[1][:, 0], rows)
    gone = np.concatenate([rows[:20], np.arange(0, 2000, 2)])
    index.remove(gone)
    assert index.size == 2050 - len(gone)
    found = index.search(np.concatenate([ITEMS[:400], more]), 10)[1]
    assert not np.isin(found, gone).any()
    exact = ExactIndex(np.concatenate([ITEMS, more]))
    exact.remove(gone)
    assert recall(index, exact, QUERIES, 10) > 0.85
    with pytest.raises(ValueError, match="hold no item"):
        index.remove(gone[:1])


def test_a_saved_index_comes_back_memory_mapped_and_the_same(kind: str, tmp_path: Path) -> None:
    config = of_kind(kind)
    assert write_index(tmp_path, ITEMS, config, QUERIES) == ["index.faiss", "index.json"]
    description = read_json(tmp_path / "index.json")
    assert description["kind"] == kind
    assert description["recall"] > 0.9
    assert description["bytes"] == (tmp_path / "index.faiss").stat().st_size
    opened = open_index(tmp_path, ITEMS, config)
    assert isinstance(opened, AnnIndex)
    again = load_index(tmp_path, ITEMS, config, writable=True)
    for found, expected in zip(opened.search(QUERIES, 5), again.search(QUERIES, 5), strict=True):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(UserError, match="writable=True"):
        opened.add(QUERIES)
    again.add(QUERIES)
    assert again.size == len(ITEMS) + len(QUERIES)


def test_an_exact_index_has_no_files(tmp_path: Path) -> None:
    config = parse_config({}).index
    assert write_index(tmp_path, ITEMS, config, QUERIES) == []
    assert isinstance(open_index(tmp_path, ITEMS, config), ExactIndex)


def test_files_of_another_index_are_refused(tmp_path: Path) -> None:
    config = of_kind("ivf_flat")
    with pytest.raises(UserError, match=r"holds no index\.faiss.*--stage prepare"):
        load_index(tmp_path, ITEMS, config)
    save_index(tmp_path, *_built(config))
    with pytest.raises(UserError, match="over other item vectors"):
        load_index(tmp_path, np.ascontiguousarray(ITEMS[::-1]), config)
    with pytest.raises(UserError, match="other settings"):
        load_index(tmp_path, ITEMS, of_kind("ivf_flat", lists=41))
    path = tmp_path / "index.faiss"
    flip(path, -1)
    with pytest.raises(UserError, match="is not the file"):
        load_index(tmp_path, ITEMS, config)
    write_json(tmp_path / "index.json", {})
    with pytest.raises(UserError, match="is not the file"):
        load_index(tmp_path, ITEMS, config)


def test_vectors_that_do_not_fit_the_settings_are_refused() -> None:
    with pytest.raises(UserError, match=r"index\.pq_bytes = 7 does not divide encoder\.dim = 16"):
        build_index(ITEMS, of_kind("ivf_pq", pq_bytes=7), QUERIES)
    with pytest.raises(UserError, match="100 items cannot train"):
        build_index(ITEMS[:100], of_kind("ivf_pq"), QUERIES)
    with pytest.raises(UserError, match="there are none"):
        build_index(ITEMS, of_kind("hnsw"), QUERIES[:0])


def test_only_an_exact_index_has_shards() -> None:
    with pytest.raises(UserError, match="set kind to 'exact', or shards to 1"):
        of_kind("hnsw", shards=2)


def _built(config: Settings) -> tuple[AnnIndex, Floats, Any]:
    index, quality = build_ann(ITEMS, config, QUERIES)
    return index, ITEMS, quality
