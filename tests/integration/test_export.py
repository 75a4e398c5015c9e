"""`r4t export` and what can be done with the folder: a prepared catalogue, an untrained network, no engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
from export_fixtures import DIM, NAMES, ROWS, K, made_run
from support import flip
from typer.testing import CliRunner

from jobs.cli import app
from jobs.export import export, export_to_store
from r4t.catalog.dataset import load_dataset
from r4t.config import Sampler
from r4t.errors import UserError
from r4t.lineage import read_json, read_manifest
from r4t.retriever import ItemIndex, R4TRetriever


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("export") / "run")


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    """Moved away from its run, which it must not need."""
    result = CliRunner().invoke(app, ["export", str(run), str(run.parent / "made")])
    assert result.exit_code == 0, result.output
    return (run.parent / "made").rename(run.parent / "exported")


@pytest.fixture(scope="module")
def retriever(exported: Path) -> R4TRetriever:
    return R4TRetriever.from_pretrained(exported)


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def test_the_folder_stands_alone(exported: Path, run: Path) -> None:
    result = CliRunner().invoke(app, ["verify", str(exported)])
    assert result.exit_code == 0, result.output
    manifest = read_manifest(exported)
    assert manifest is not None
    assert set(manifest["files"]) | {"manifest.json"} == {file.name for file in exported.iterdir()}
    assert set(manifest["lineage"]) == {"prepare", "retriever"}
    card = (exported / "README.md").read_text()
    assert manifest["lineage"]["retriever"]["manifest"][:16] in card
    assert "3 steps, guidance 0.5: 6 network calls" in card
    assert "not evaluated" in card
    table = pq.read_table(exported / "items.parquet")
    vectors = load_dataset(run / "prepare").item_vectors
    assert table["item_id"].to_pylist() == NAMES
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), dtype=np.float32), vectors)


def test_the_card_shows_what_the_run_measured(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    cells = {"reward": {"mean": 0.375}, "judge": {"alignment": {"mean": 0.293}}, "invalid": {"mean": 0.0}}
    about = {
        "dataset": "foods",
        "n_queries": 60,
        "database_items": 24,
        "seeds": [0, 1],
        "k": K,
        "judge_encoder": "minilm",
    }
    methods = {"r4t_diffusion": cells, "mmr": {"reward": {"mean": 0.5}}, "random": cells}
    (run / "evaluate").mkdir()
    (run / "evaluate" / "metrics.json").write_text(json.dumps({**about, "methods": methods}))
    export(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "60 held-out queries of `foods`, 24 items, 2 seed(s), k = 5; the judge is minilm." in card
    assert "| method | reward | judge: alignment |" in card
    assert "| mmr | 0.500 |  |\n| r4t_diffusion | 0.375 | 0.293 |" in card
    assert "random" not in card


def test_rows_are_reproducible_by_seed_and_differ_across_seeds(retriever: R4TRetriever, exported: Path) -> None:
    queries = ["light summer lunch", "something warm"]
    rows = retriever.embed(queries, seed=1)
    assert rows.shape == (2, ROWS, DIM)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=-1), 1, atol=1e-5)
    np.testing.assert_array_equal(rows, R4TRetriever.from_pretrained(exported).embed(queries, seed=1))
    assert np.abs(rows - retriever.embed(queries, seed=2)).max() > 0.1
    assert np.abs(rows[0] - rows[1]).max() > 1e-3


def test_a_querys_rows_do_not_depend_on_its_batch(retriever: R4TRetriever) -> None:
    queries = [f"query {number}" for number in range(5)]
    seeds = [3, 1, 4, 1, 5]
    together = retriever.embed(queries, seed=seeds)
    alone = np.concatenate([retriever.embed(query, seed=seed) for query, seed in zip(queries, seeds, strict=True)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    vectors = retriever.embed(retriever.encode(queries), seed=seeds)
    np.testing.assert_allclose(together, vectors, atol=1e-5)


def test_sets_hold_the_rows_nearest_items(retriever: R4TRetriever, run: Path) -> None:
    vectors = load_dataset(run / "prepare").item_vectors
    (found,) = retriever.retrieve("light summer lunch", seed=1)
    assert len(found.items) == len({item.item_id for item in found.items}) == K
    for item in found.items:
        assert item.name == item.item_id
        score = float(vectors[NAMES.index(item.item_id)] @ found.rows[item.row])
        assert item.score == pytest.approx(score, abs=1e-5)
    first = found.items[0]
    assert first.row == 0
    assert first.item_id == NAMES[int((vectors @ found.rows[0]).argmax())]
    (plain,) = retriever.retrieve("light summer lunch", 3, spread=0)
    nearest = np.argsort(-(vectors @ retriever.encode(["light summer lunch"])[0]))[:3]
    assert [item.item_id for item in plain.items] == [NAMES[row] for row in nearest]


def test_an_index_of_ones_own_and_the_runs(retriever: R4TRetriever, run: Path, exported: Path) -> None:
    own = faiss.IndexFlatL2(DIM)
    own.add(retriever.encode(NAMES))
    items = ItemIndex(index=own, encoder=retriever.encoder_hash, item_ids=NAMES)
    expected = [item.item_id for item in retriever.retrieve("warm", 4)[0].items]
    for index in (items, ItemIndex.of_run(run)):
        assert [item.item_id for item in retriever.retrieve("warm", 4, items=index)[0].items] == expected
        opened = R4TRetriever.from_pretrained(exported, items=index)
        assert [item.item_id for item in opened.retrieve("warm", 4)[0].items] == expected


def test_an_index_of_another_encoder_is_refused(retriever: R4TRetriever, exported: Path, tmp_path: Path) -> None:
    other = ItemIndex.of_run(made_run(tmp_path / "other", dim=8))
    with pytest.raises(UserError, match="made with another encoder"):
        retriever.retrieve("warm", items=other)
    with pytest.raises(UserError, match="made with another encoder"):
        R4TRetriever.from_pretrained(exported, items=other)


def test_a_projection_goes_with_the_retriever(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", reduce="pca", dim=8)
    export(run, tmp_path / "out")
    retriever = R4TRetriever.from_pretrained(tmp_path / "out")
    np.testing.assert_allclose(retriever.encode(NAMES), load_dataset(run / "prepare").item_vectors, atol=1e-5)
    (tmp_path / "out" / "reduction.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        R4TRetriever.from_pretrained(tmp_path / "out").embed("warm")


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (np.ones((2, DIM + 1), np.float32), rf"shape \(2, {DIM + 1}\), this retriever needs \[B, {DIM}\]"),
        (np.ones(DIM, np.float32), "shape"),
        (np.full((1, DIM), np.nan, np.float32), "NaN"),
        (np.zeros((1, DIM), np.float32), "zero"),
        ("  ", "empty"),
    ],
)
def test_queries_that_cannot_be_used(retriever: R4TRetriever, queries: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        retriever.embed(queries)  # type: ignore[arg-type]


def test_arguments_are_checked(retriever: R4TRetriever, exported: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'onnx'"):
        R4TRetriever.from_pretrained(exported, engine="onx")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="2 queries were given 3 seeds"):
        retriever.embed(["a", "b"], seed=[1, 2, 3])
    with pytest.raises(UserError, match="negative"):
        retriever.embed("a", seed=-1)
    with pytest.raises(UserError, match="k is 0"):
        retriever.retrieve("a", 0)
    assert retriever.embed([]).shape == (0, ROWS, DIM)
    assert retriever.retrieve([]) == []


@pytest.mark.parametrize("name", ["model.safetensors", "items.parquet", "config.json", "retriever.json"])
def test_damaged_files(copy: Path, name: str) -> None:
    (copy / name).write_bytes((copy / name).read_bytes()[:40])
    with pytest.raises(UserError, match=name):
        R4TRetriever.from_pretrained(copy).retrieve(np.ones((1, DIM), np.float32))


@pytest.mark.parametrize("name", ["model.safetensors", "items.parquet"])
def test_one_altered_byte_is_seen(copy: Path, name: str) -> None:
    flip(copy / name, (copy / name).stat().st_size // 2)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        R4TRetriever.from_pretrained(copy).retrieve(np.ones((1, DIM), np.float32))


def test_another_encoder_than_the_runs_is_refused(copy: Path) -> None:
    stored = read_json(copy / "retriever.json")
    stored["encoder"]["fingerprint"] = "0" * 64
    (copy / "retriever.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="not the one the retriever was trained with"):
        R4TRetriever.from_pretrained(copy).embed("warm")
    stored["encoder"]["name"] = "precomputed"
    (copy / "retriever.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="encoder_path"):
        R4TRetriever.from_pretrained(copy).embed("warm")


def test_exports_replace_exports_and_nothing_else(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="holds something else"):
        export(run, target)
    assert (target / "mine.txt").read_text() == "precious"
    (target / "mine.txt").unlink()
    export(run, target)
    export(run, target, items=False)
    assert not (target / "items.parquet").exists()
    bare = R4TRetriever.from_pretrained(target)
    assert bare.embed("warm").shape == (1, ROWS, DIM)
    with pytest.raises(UserError, match="exported without items"):
        bare.retrieve("warm")
    with pytest.raises(UserError, match="no finished retriever"):
        export(run, target, part="retriever/zero_shot")
    with pytest.raises(UserError, match="r4t export RUN DIR"):
        R4TRetriever.from_pretrained(run / "retriever")


def test_an_export_to_a_store_is_what_is_pulled_from_it(run: Path, exported: Path, tmp_path: Path) -> None:
    url, run_url = f"file://{tmp_path}/store/served", f"file://{tmp_path}/store/run"
    result = CliRunner().invoke(app, ["export", str(run), url])
    assert result.exit_code == 0, result.output
    assert CliRunner().invoke(app, ["pull", url, str(tmp_path / "served")]).exit_code == 0
    assert {file.name for file in exported.iterdir()} <= {file.name for file in (tmp_path / "served").iterdir()}
    assert CliRunner().invoke(app, ["verify", str(tmp_path / "served")]).exit_code == 0
    assert R4TRetriever.from_pretrained(tmp_path / "served").description.rows == ROWS
    assert CliRunner().invoke(app, ["push", str(run), run_url]).exit_code == 0
    with pytest.raises(UserError, match=r"holds a run, which an export would replace"):
        export_to_store(run, run_url)


def test_another_sampler(exported: Path) -> None:
    one = R4TRetriever.from_pretrained(exported, sampler=Sampler(name="euler_maruyama", steps=4, guidance=0))
    assert one.calls == 4
    assert np.isfinite(one.embed("warm")).all()
    assert R4TRetriever.from_pretrained(exported).calls == 6


def test_it_loads_no_engine_of_the_cluster(exported: Path) -> None:
    program = """
import sys
from r4t.retriever import R4TRetriever
assert len(R4TRetriever.from_pretrained(sys.argv[1]).retrieve("warm", 3)[0].items) == 3
loaded = {"ray", "vllm", "deepspeed", "transformers"} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", program, str(exported)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
