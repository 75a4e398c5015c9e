"""The prepare stage on real catalogues, from configuration to the dataset that later stages load."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs import prepare
from jobs.run import Run
from r4t.catalog.dataset import Dataset, load_dataset
from r4t.catalog.encoders import encoder_record, load_encoder
from r4t.catalog.index import AnnIndex, ExactIndex, open_index
from r4t.catalog.recipes import load_recipes
from r4t.catalog.source import SPLITS, normalise
from r4t.catalog.vocabulary import FAMILIES
from r4t.config import Config, load_config, parse_config
from r4t.errors import UserError
from r4t.lineage import read_manifest, read_tensors, write_tensors
from r4t.verify import verify

ROOT = Path(__file__).parents[2]
BUNDLES = ROOT.parent / "shared" / "data" / "fashion_bundles"
needs_bundles = pytest.mark.skipif(not BUNDLES.is_dir(), reason=f"benchmark data absent: no folder {BUNDLES}")

RECIPES_OAR = parse_config({"task": "oar"})
RECIPES_WSCR = parse_config({"task": "wscr", "data": {"max_item_share": 0.05}})


def prepared(folder: Path, config: Config) -> Dataset:
    run = Run(folder, config)
    prepare.main(config, run)
    run.close()
    return load_dataset(folder / "prepare")


@pytest.fixture(scope="module")
def oar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oar")
    prepared(folder, RECIPES_OAR)
    return folder


@pytest.fixture(scope="module")
def wscr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wscr")
    prepared(folder, RECIPES_WSCR)
    return folder


def test_c33_open_ended_recipes_have_no_references(oar: Path) -> None:
    dataset = load_dataset(oar / "prepare")
    assert all(query.references == () for query in dataset.queries)
    assert not dataset.item_frequencies().any()
    manifest = read_manifest(oar / "prepare")
    assert manifest is not None
    assert manifest["inputs"] == {}, "no file of human-made sets went into it"
    assert [len(dataset.split(split)) for split in SPLITS] == [2400, 300, 300]


def test_c02_every_vector_of_the_artefact_has_unit_length(oar: Path) -> None:
    dataset = load_dataset(oar / "prepare")
    assert dataset.item_vectors.shape == (len(dataset.item_ids), 128)
    for vectors in (dataset.item_vectors, dataset.query_vectors):
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5


def test_c03_the_index_of_real_items_equals_brute_force(oar: Path) -> None:
    dataset = load_dataset(oar / "prepare")
    queries = dataset.query_vectors[:1000]
    scores, rows = ExactIndex(dataset.item_vectors).search(queries, 10)
    everything = queries @ dataset.item_vectors.T
    np.testing.assert_allclose(scores, -np.sort(-everything, axis=1)[:, :10], atol=1e-5)
    np.testing.assert_allclose(scores, np.take_along_axis(everything, rows, axis=1), atol=1e-5)


def test_an_approximate_index_is_part_of_the_artefact(tmp_path: Path) -> None:
    config = parse_config({"data": {"n_queries": 100}, "index": {"kind": "ivf_flat", "recall_floor": 0.5}})
    dataset = prepared(tmp_path, config)
    folder = tmp_path / "prepare"
    manifest = read_manifest(folder)
    assert manifest is not None
    assert {"index.faiss", "index.json"} <= manifest["files"].keys()
    assert verify(folder) == []
    assert isinstance(open_index(folder, dataset.item_vectors, config.index), AnnIndex)


def test_c01_the_vectors_are_the_frozen_encoders(oar: Path) -> None:
    dataset, manifest = load_dataset(oar / "prepare"), read_manifest(oar / "prepare")
    encoder = load_encoder("wordllama", 128)
    assert manifest is not None
    assert manifest["encoder"] == encoder_record(encoder, RECIPES_OAR.encoder)
    np.testing.assert_array_equal(dataset.item_vectors[:50], encoder.encode(dataset.item_texts[:50]))


def test_c34_weakly_supervised_splits_share_no_title(wscr: Path) -> None:
    dataset = load_dataset(wscr / "prepare")
    titles = {split: {normalise(dataset.queries[row].text) for row in dataset.split(split)} for split in SPLITS}
    assert sum(map(len, titles.values())) == len(dataset.queries) == len(set.union(*titles.values()))
    assert all(titles.values())


def test_references_are_the_dishes_own_ingredients(wscr: Path) -> None:
    dataset = load_dataset(wscr / "prepare")
    recipes, _ = load_recipes()
    ingredients: dict[str, set[str]] = {}
    for recipe in recipes:
        ingredients.setdefault(normalise(recipe.name), set()).update(i.name for i in recipe.ingredients)
    for query in dataset.queries:
        names = [dataset.item_names[row] for row in query.references]
        assert len(names) >= 2
        assert set(names) <= ingredients[normalise(query.text)]
    frequencies = dataset.item_frequencies()
    row = dataset.item_names.index("quinoa")
    training = [dataset.queries[i] for i in dataset.split("train")]
    assert frequencies[row] == pytest.approx(np.mean([row in query.references for query in training]))
    # The limit holds for recipes; queries are fewer, because equal dishes share one and small sets are dropped.
    assert frequencies.max() < 0.1


def test_the_account_of_what_was_dropped_is_complete(wscr: Path) -> None:
    manifest = read_manifest(wscr / "prepare")
    assert manifest is not None
    sets = {reason: count for reason, count in manifest["dropped"].items() if not reason.startswith("staple")}
    assert (
        manifest["metrics"]["queries_train"]
        + manifest["metrics"]["queries_valid"]
        + manifest["metrics"]["queries_test"]
        + sum(sets.values())
        == 4819
    )


def test_the_stage_is_verifiable_and_quick_and_says_one_line(oar: Path) -> None:
    manifest = read_manifest(oar / "prepare")
    assert manifest is not None
    assert verify(oar / "prepare") == []
    assert manifest["metrics"]["seconds"] < 15
    log = (oar / "log.txt").read_text().splitlines()
    assert len(log) == 1
    assert "items, queries 2400 train, 300 valid, 300 test" in log[0]
    line = json.loads((oar / "metrics.jsonl").read_text())
    assert line["stage"] == "prepare"
    assert line["values"]["items"] == manifest["metrics"]["items"]


def test_a_second_run_changes_nothing_and_another_folder_gets_the_same_bytes(oar: Path, tmp_path: Path) -> None:
    def hashes(folder: Path) -> dict[str, str]:
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (folder / "prepare").iterdir()}

    before = hashes(oar)
    prepared(oar, RECIPES_OAR)
    assert hashes(oar) == before
    prepared(tmp_path, RECIPES_OAR)
    data = {name: value for name, value in before.items() if name != "manifest.json"}
    assert {name: value for name, value in hashes(tmp_path).items() if name != "manifest.json"} == data


def test_further_columns_reach_the_artefact(oar: Path) -> None:
    table = pq.read_table(oar / "prepare" / "items.parquet")
    assert {"item_id", "text", "name", "meal", "minutes", "calories", "protein", "allergens"} <= set(table.column_names)


def test_an_unfinished_folder_is_not_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--stage prepare"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: {**v, "items": v["items"] * np.float32(np.nan)}, "items vectors hold NaN"),
        (lambda v: {**v, "queries": v["queries"] + np.float32(np.inf)}, "queries vectors hold NaN or infinite"),
        (lambda v: {**v, "items": v["items"][:-1]}, "items vectors are float32"),
        (lambda v: {**v, "items": v["items"].astype(np.float64)}, "not float32"),
        (lambda v: {**v, "items": v["items"] * np.float32(2)}, "not of unit length"),
        (lambda v: {"items": v["items"]}, "has no 'queries'"),
    ],
)
def test_spoilt_vectors_are_refused_with_the_fix(
    tmp_path: Path, spoil: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], message: str
) -> None:
    config = parse_config({"task": "wscr"})
    prepared(tmp_path, config)
    path = tmp_path / "prepare" / "vectors.safetensors"
    write_tensors(path, spoil(read_tensors(path)))
    with pytest.raises(UserError, match=rf"(?s){message}.*delete .*prepare"):
        load_dataset(tmp_path / "prepare")


def test_an_unknown_split_is_refused(oar: Path) -> None:
    with pytest.raises(UserError, match="train, valid, test"):
        load_dataset(oar / "prepare").split("dev")


def test_recomposed_sets_join_training_alone(wscr: Path, tmp_path: Path) -> None:
    plain, manifest = load_dataset(wscr / "prepare"), read_manifest(wscr / "prepare")
    augmented = {"max_item_share": 0.05, "augment": {"copies": 2}}
    dataset = prepared(tmp_path, parse_config({"task": "wscr", "data": augmented}))
    more = read_manifest(tmp_path / "prepare")
    assert manifest is not None
    assert more is not None
    before = len(plain.queries)
    assert dataset.queries[:before] == plain.queries
    assert dataset.item_ids == plain.item_ids
    copies = dataset.queries[before:]
    assert len(copies) == more["metrics"]["queries_recomposed"] > 1.9 * len(plain.split("train"))
    assert {query.split for query in copies} == {"train"}
    assert {query.origin for query in copies} <= {plain.queries[row].query_id for row in plain.split("train")}
    lost = sum(count for reason, count in more["dropped"].items() if reason.startswith("recomposed"))
    assert len(copies) + lost == 2 * len(plain.split("train"))
    np.testing.assert_array_equal(dataset.item_frequencies(), plain.item_frequencies())


def test_a_vocabulary_of_ones_own_writes_the_queries(tmp_path: Path) -> None:
    words = {family: [f"{family} {word}" for word in ("calm", "wild", "small")] for family in FAMILIES}
    (tmp_path / "garden.yaml").write_text(json.dumps({"nouns": ["garden", "border"], "families": words}))
    (tmp_path / "c.yaml").write_text("data: {families: garden.yaml, n_queries: 60}\n")
    dataset = prepared(tmp_path / "run", load_config(tmp_path / "c.yaml"))
    assert len(dataset.queries) == 60
    assert {query.text.split()[-1] for query in dataset.queries} == {"garden", "border"}


@needs_bundles
def test_c34_fashion_bundles_through_the_ordinary_loader(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, load_config(ROOT / "configs" / "fashion-bundles.yaml"))
    assert len(dataset.item_ids) == 4487
    keys = [normalise(query.text) for query in dataset.queries]
    assert len(keys) == len(set(keys)) > 1200
    assert all(len(dataset.split(split)) > 100 for split in SPLITS)
    raw = pq.read_table(BUNDLES / "sets.parquet").to_pylist()
    held_out = {normalise(row["title"]) for row in raw if row["split"] != "train"}
    assert held_out.isdisjoint(keys[row] for row in dataset.split("train"))
    manifest = read_manifest(tmp_path / "prepare")
    assert manifest is not None
    assert len(dataset.queries) + sum(manifest["dropped"].values()) == 1909


@needs_bundles
def test_open_ended_queries_on_a_parquet_catalogue(tmp_path: Path) -> None:
    data = {"kind": "table", "items": str(BUNDLES / "items.parquet"), "families": "fashion", "min_item_words": 3}
    dataset = prepared(tmp_path, parse_config({"task": "oar", "data": data}))
    assert all(len(name.split()) >= 3 for name in dataset.item_names)
    assert len(dataset.queries) == 3000
