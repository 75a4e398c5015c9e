"""What `r4t catalog inspect` says and draws: counts by hand, neighbours and the plane against brute force."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support import assert_user_error, r4t

from r4t.catalog.item_map import COLOURS, HEIGHT, WIDTH, draw_map, labels, principal_plane
from r4t.catalog.overview import nearest_cosines, overview
from r4t.catalog.source import Catalog, Item
from r4t.errors import UserError
from r4t.types import Floats, Query


def unit(rng: np.random.Generator, rows: int, dim: int) -> Floats:
    vectors = rng.standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@settings(max_examples=40)
@given(n=st.integers(1, 600), seed=st.integers(0, 1000))
def test_nearest_neighbours_are_those_of_brute_force(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit(rng, n, 6)
    rows = np.sort(rng.permutation(n)[: max(n // 2, 1)])
    exact = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    np.fill_diagonal(exact, -1)
    np.testing.assert_allclose(nearest_cosines(vectors, rows), exact[rows].max(axis=1), atol=1e-6)


def test_the_overview_counts() -> None:
    texts = ["red hat", "Red  Hat", "blue scarf of wool", "x"]
    queries = [
        Query(query_id=str(i), text=f"q{i}", split=split, references=tuple(range(i)))
        for i, split in enumerate(["train", "train", "valid"])
    ]
    items = [Item(item_id=str(i), text=text, name=text) for i, text in enumerate(texts)]
    vectors = np.eye(4, 8, dtype=np.float32)[[0, 0, 1, 2]]
    vectors[3, :2] = np.sqrt([0, 0.96]) * [1, 1]
    vectors[3, 2] = np.sqrt(0.04)
    found = overview(Catalog(items=items, queries=queries, dropped={"x": 2}), vectors)
    assert (found["items"], found["repeated_texts"], found["dropped"], found["width"]) == (4, 1, {"x": 2}, 8)
    assert (found["words_per_text"]["min"], found["words_per_text"]["median"], found["words_per_text"]["max"]) == (
        1,
        2,
        4,
    )
    near = found["neighbours"]
    assert (near["sampled_items"], near["same_vector"], near["near_duplicates"]) == (4, 0.5, 1.0)
    assert near["distance"]["max"] == pytest.approx(1 - np.sqrt(0.96), abs=1e-6)
    assert found["queries"] == {"train": 2, "valid": 1, "test": 0}
    assert found["references_per_query"]["max"] == 2, "queries without references do not count"


@settings(max_examples=30)
@given(n=st.integers(3, 60), d=st.integers(2, 9), seed=st.integers(0, 1000))
def test_the_plane_is_that_of_the_covariance(n: int, d: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    points, shares = principal_plane(vectors)
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    values = np.linalg.eigvalsh(centred.T @ centred)[::-1]
    np.testing.assert_allclose((points.astype(np.float64) ** 2).sum(axis=0), values[:2], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(shares, values[:2] / values.sum(), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(points, principal_plane(vectors)[0])


def test_paths_are_named_by_the_level_that_tells_items_apart() -> None:
    paths = ["Clothing > Men > Hats", "Clothing > Women", "Clothing >  Girls > Hats", None]
    assert labels(paths) == ["Men", "Women", "Girls", None]
    assert labels(["rock", "pop", "jazz", ""]) == ["rock", "pop", "jazz", None]
    assert labels(["same", "same", "same"]) == ["same", "same", "same"]
    assert labels([None, None, None]) == [None, None, None]


def test_the_map_is_a_picture_in_the_categories_colours(tmp_path: Path) -> None:
    path = tmp_path / "maps" / "items.png"
    groups = ["first"] * 40 + ["second"] * 30 + ["third"] * 20 + [None] * 10
    draw_map(path, "shop", unit(np.random.default_rng(0), 100, 8), groups)
    first = path.read_bytes()
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (WIDTH, HEIGHT))
        colours = {"#" + bytes(pixel).hex() for pixel in np.unique(np.asarray(image).reshape(-1, 3), axis=0)}
    assert set(COLOURS[:3]) <= colours, "the legend names the three categories"
    assert not set(COLOURS[3:]) & colours
    draw_map(path, "shop", unit(np.random.default_rng(0), 100, 8), groups)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["items.png"]
    draw_map(path, "shop", np.ones((3, 8), dtype=np.float32), [None] * 3)
    with pytest.raises(UserError, match="at least three items, not 2"):
        draw_map(path, "shop", np.ones((2, 8), dtype=np.float32), [None] * 2)
    with pytest.raises(UserError, match=r"does not end in .png"):
        draw_map(tmp_path / "x.svg", "shop", np.ones((3, 8), dtype=np.float32), [None] * 3)


def test_the_command_prints_and_draws(tmp_path: Path) -> None:
    texts = ["red hat", "red hat", "blue scarf", "green coat", None]
    pq.write_table(pa.table({"item_id": [*"abcde"], "text": texts, "kind": [*"xxyy", "z"]}), tmp_path / "items.parquet")
    config = tmp_path / "shop.yaml"
    config.write_text("name: shop\ndata: {kind: table, items: items.parquet, families: fashion, n_queries: 20}\n")
    out = tmp_path / "map.png"
    done = r4t("catalog", "inspect", config, "--out", out, "--colour", "kind")
    assert done.returncode == 0, done.stderr
    for line in ("shop: 4 items with vectors of width 128, task oar", "1 items have the text of another before them",
                 "50.0% have another item at a cosine above .95, 50.0% one with the same vector (all items)",
                 "16 train, 2 valid, 2 test", "1 items without a text", str(out)):  # fmt: skip
        assert line in done.stdout, done.stdout
    assert out.is_file()
    found = json.loads(r4t("catalog", "inspect", config, "--out", out, "--json", "--set", "encoder.dim=64").stdout)
    assert (found["schema"], found["items"], found["width"], found["dropped"]) == (
        1,
        4,
        64,
        {"items without a text": 1},
    )
    assert_user_error(r4t("catalog", "inspect", tmp_path / "no.yaml"), "no config at")
