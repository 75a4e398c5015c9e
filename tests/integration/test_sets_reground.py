"""Training sets follow a changed catalogue: real encoder, index, scorer and files, no language model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from jobs.sets_reground import reground
from r4t.catalog.dataset import FILES, load_dataset, save_dataset
from r4t.catalog.encoders import Encoder, encoder_record, load_encoder
from r4t.catalog.source import Catalog, Item
from r4t.config import Config, parse_config
from r4t.errors import UserError
from r4t.fanout import format_answer
from r4t.lineage import MANIFEST, file_hash, read_manifest, write_manifest
from r4t.scoring import SetScorer
from r4t.sets import ShardColumns, load_targets, read_shard, write_shard
from r4t.sets.columns import shard_paths
from r4t.sets.records import Written, build_shard, scoring_config
from r4t.sets.store import read_lineage
from r4t.types import Query
from r4t.verify import verify

FOODS = ("apple", "carrot", "lemon", "walnut", "ginger", "rice", "bean")
NAMES = [f"{food} {dish}" for food in FOODS for dish in ("soup", "cake", "salad", "pie", "stew")]
QUERIES = ["warm dinner", "light lunch", "festive treat", "quick snack", "rustic supper", "cold starter"]
K, L, SAMPLES = 3, 4, 8


def config_of(task: str) -> Config:
    objective = {"kind": "coverage"} if task == "wscr" else {}
    return parse_config(
        {"task": task, "fanout": {"k": K}, "retriever": {"rows": L}, "encoder": {"dim": 64}, "objective": objective}
    )


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("wordllama", 64)


def prepare(run: Path, encoder: Encoder, task: str, names: Sequence[str], queries: Sequence[str] = QUERIES) -> Path:
    """A run directory whose stage `prepare` has seen a catalogue of these items."""
    folder, config = run / "prepare", config_of(task)
    folder.mkdir(parents=True)
    (run / "config.yaml").write_text(json.dumps(config.model_dump(mode="json")))  # JSON is YAML
    references = (0, 1, 2) if task == "wscr" else ()
    catalog = Catalog(
        items=[Item(item_id=name.replace(" ", "-"), text=name, name=name) for name in names],
        queries=[Query(query_id=f"q-{q}", text=q, split="train", references=references) for q in queries],
        dropped={},
    )
    save_dataset(folder, catalog, encoder.encode(names), encoder.encode(queries))
    extra = {"encoder": encoder_record(encoder, config.encoder)}
    write_manifest(folder, stage="prepare", config={}, inputs={}, files=FILES, metrics={}, extra=extra)
    return run


def answer(rng: np.random.Generator) -> str:
    """A list of one to K sub-queries."""
    return format_answer([" ".join(rng.choice(FOODS, 2)) for _ in range(rng.integers(1, K + 1))])


def synthesise(run: Path, encoder: Encoder, task: str) -> None:
    """Stage `sets` over the run's catalogue from random answers, a fifth of which is noise."""
    config, dataset = config_of(task), load_dataset(run / "prepare")
    rng = np.random.default_rng(0)
    lineage = {"policy": "policy", "prepare_sha256": file_hash(run / "prepare" / MANIFEST)}
    scorer = SetScorer(dataset, encoder, scoring_config(config))
    for number, rows in enumerate(([0, 1], [2, 3], [4, 5])):
        texts = ["noise" if i % 5 == 4 else answer(rng) for i in range(len(rows) * SAMPLES)]
        written = Written(
            query=np.repeat(rows, SAMPLES),
            sample=np.tile(np.arange(SAMPLES), len(rows)),
            text=texts,
            finished=[i % 2 == 0 for i in range(len(texts))],
            policy_version=7,
        )
        shard = build_shard(written, scorer, config)
        write_shard(run / "sets" / f"shard-{number:05d}.parquet", shard, lineage=lineage)
    names = [path.name for path in (run / "sets").iterdir()]
    inputs = {"prepare": run / "prepare"}
    write_manifest(run / "sets", stage="sets", config={}, inputs=inputs, files=names, metrics={})


@pytest.fixture(params=["oar", "wscr"])
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def old(tmp_path: Path, encoder: Encoder, task: str) -> Path:
    run = prepare(tmp_path / "old", encoder, task, NAMES)
    synthesise(run, encoder, task)
    return run


def shards(run: Path) -> list[ShardColumns]:
    return [read_shard(path) for path in shard_paths(run / "sets")]


def equal(one: ShardColumns, other: ShardColumns) -> bool:
    def same(a: object, b: object) -> bool:
        if isinstance(a, np.ndarray):
            return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")  # type: ignore[arg-type]
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
        return a == b

    return all(same(getattr(one, field.name), getattr(other, field.name)) for field in fields(ShardColumns))


def test_an_unchanged_catalogue_changes_nothing(tmp_path: Path, old: Path, encoder: Encoder, task: str):
    new = prepare(tmp_path / "new", encoder, task, NAMES)
    found = reground(old, new)
    assert (found["changed"], found["left_out"]) == (0, 0)
    assert found["sets"] == sum(int(shard.valid.sum()) for shard in shards(old)) > 20
    for before, after in zip(shards(old), shards(new), strict=True):
        assert equal(before, after)


def test_without_an_item_exactly_the_sets_that_held_it_change(tmp_path: Path, encoder: Encoder):
    old = prepare(tmp_path / "old", encoder, "oar", NAMES)
    synthesise(old, encoder, "oar")
    uses = np.bincount(np.concatenate([s.rows[s.valid].ravel() for s in shards(old)]), minlength=len(NAMES))
    gone = int(uses.argmax())
    left = [name for i, name in enumerate(NAMES) if i != gone]
    new = prepare(tmp_path / "new", encoder, "oar", left)
    found = reground(old, new)
    held = 0
    for before, after in zip(shards(old), shards(new), strict=True):
        assert np.array_equal(before.subqueries, after.subqueries)
        assert before.texts == after.texts
        assert np.array_equal(before.status, after.status)
        for old_rows, new_rows, valid in zip(before.rows.tolist(), after.rows.tolist(), before.valid, strict=True):
            if not valid:
                assert new_rows == [-1] * L
                continue
            same = [NAMES[row] for row in old_rows] == [left[row] for row in new_rows]
            assert same == (gone not in old_rows)
            held += gone in old_rows
    assert found["changed"] == held > 0
    manifest = read_manifest(new / "sets")
    assert manifest is not None
    assert manifest["regrounded"]["changed"] == held
    targets = load_targets(new / "sets", load_dataset(new / "prepare"), config_of("oar"), new / "prepare")
    assert len(targets) == found["sets"]


def test_an_item_with_another_text_changes_the_sets_that_hold_it(tmp_path: Path, encoder: Encoder):
    """The same ids in every set, but another target."""
    old = prepare(tmp_path / "old", encoder, "oar", NAMES)
    synthesise(old, encoder, "oar")
    new = prepare(tmp_path / "new", encoder, "oar", NAMES)
    dataset = load_dataset(new / "prepare")
    held = int(shards(old)[0].rows[0, 0])
    vectors = dataset.item_vectors.copy()
    vectors[held, :2] += np.float32(1e-4)
    vectors[held] /= np.linalg.norm(vectors[held])
    items = [Item(item_id=i, text=t, name=t) for i, t in zip(dataset.item_ids, NAMES, strict=True)]
    catalog = Catalog(items=items, queries=dataset.queries, dropped={})
    save_dataset(new / "prepare", catalog, vectors, dataset.query_vectors)
    expected = sum(int((s.rows[s.valid] == held).any(axis=1).sum()) for s in shards(old))
    assert reground(old, new)["changed"] == expected > 0


def test_queries_that_are_gone_are_left_out_and_counted(tmp_path: Path, old: Path, encoder: Encoder, task: str):
    new = prepare(tmp_path / "new", encoder, task, NAMES, queries=[QUERIES[5], *QUERIES[1:4]])  # 0 and 4 are gone
    found = reground(old, new)
    assert found["left_out"] == 2 * SAMPLES
    ids = [one for shard in shards(new) for one in shard.query_id]
    assert ids == [f"q-{QUERIES[q]}" for q in (1, 2, 3, 5) for _ in range(SAMPLES)]
    assert np.concatenate([s.query for s in shards(new)]).tolist() == [q for q in (1, 2, 3, 0) for _ in range(SAMPLES)]
    with pytest.raises(UserError, match="no query of"):
        reground(old, prepare(tmp_path / "other", encoder, task, NAMES, queries=["something else"]))


def test_shards_are_written_exactly_once_and_name_the_old(tmp_path: Path, old: Path, encoder: Encoder, task: str):
    new = prepare(tmp_path / "new", encoder, task, NAMES[:-3])
    first = reground(old, new)
    paths = shard_paths(new / "sets")
    content = [path.read_bytes() for path in paths]
    (new / "sets" / MANIFEST).unlink()  # as if killed: one shard cut, one not there yet, one whole
    paths[0].write_bytes(content[0][: len(content[0]) // 2])
    paths[1].unlink()
    stood = paths[2].stat().st_mtime_ns
    with pytest.raises(UserError, match="damaged"):
        load_targets(new / "sets", load_dataset(new / "prepare"), config_of(task))
    assert reground(old, new) == first
    assert [path.read_bytes() for path in paths] == content
    assert paths[2].stat().st_mtime_ns == stood
    assert reground(old, new) == first  # once more, over the finished folder
    assert verify(new / "sets") == []
    lineage = read_lineage(paths[0])
    assert lineage["prepare_sha256"] == file_hash(new / "prepare" / MANIFEST)
    assert lineage["regrounded_from"]["lineage"] == read_lineage(shard_paths(old / "sets")[0])


def test_what_cannot_be_done_is_said_and_nothing_overwritten(tmp_path: Path, old: Path, encoder: Encoder, task: str):
    new = prepare(tmp_path / "new", encoder, task, NAMES)
    with pytest.raises(UserError, match="--out"):
        reground(old, new / "prepare")
    assert reground(old, new / "prepare", tmp_path / "out")["changed"] == 0
    with pytest.raises(UserError, match="sets to start from"):
        reground(old, old)
    with pytest.raises(UserError, match="no run directory"):
        reground(tmp_path, new)
    synthesise(new, encoder, task)
    before = {path: path.read_bytes() for path in (new / "sets").iterdir()}
    with pytest.raises(UserError, match="other finished sets"):
        reground(old, new)
    assert {path: path.read_bytes() for path in (new / "sets").iterdir()} == before
    (new / "sets" / MANIFEST).unlink()
    with pytest.raises(UserError, match="of other sets"):
        reground(old, new)
    with pytest.raises(UserError, match="not finished"):
        reground(new, old)
    other = prepare(tmp_path / "encoder", load_encoder("wordllama", 128), task, NAMES)
    with pytest.raises(UserError, match="another encoder"):
        reground(old, other)
