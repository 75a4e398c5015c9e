"""W&B offline, for real: artifacts with their lineage, tables of sets, one run a stage however often it is resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import wandb

from jobs.wandb_sink import WandbSink
from r4t.config import parse_config
from r4t.evaluation.training_samples import save_samples
from r4t.lineage import file_hash, write_json, write_manifest

CONFIG = parse_config({"tracking": {"wandb": "offline"}})
SECRET = "0123456789abcdef0123456789abcdef01234567"  # noqa: S105
SAMPLE = {"query": "leek soup", "reward": 0.5, "valid": True, "subqueries": ["leek"], "items": ["Leek pie", "Stock"]}


def stage(folder: Path, name: str, inputs: tuple[str, ...], *files: str) -> Path:
    """A finished stage that holds `files`."""
    here = folder / name
    for file in files:
        (here / file).parent.mkdir(parents=True, exist_ok=True)
        (here / file).write_text(f"content of {file}")
    sources = {one: folder / one for one in inputs}
    write_manifest(here, stage=name, config={}, inputs=sources, files=list(files), metrics={"reward": 0.5})
    return here


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stage folm in one process's sink, everything after it in another's, as when a run is resumed."""
    folder = tmp_path_factory.mktemp("wandb") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", SECRET)
        patch.delenv("WANDB_DATA_DIR", raising=False)
        patch.delenv("WANDB_CACHE_DIR", raising=False)
        stage(folder, "prepare", (), "items.json")
        save_samples(folder / "folm", 0, [SAMPLE])
        stage(folder, "folm", ("prepare",), "policy/config.json", "policy/model.safetensors", "warm_start/config.json")
        first = WandbSink(folder, CONFIG)
        first.began("prepare")
        first.write("prepare", 0, {"items": 3})
        first.finished("prepare", folder / "prepare")
        first.began("folm")
        first.write("warm_start", 1, {"loss": 0.5})
        first.write("folm", 1, {"reward": 0.25})
        first.close()  # and is resumed
        first = WandbSink(folder, CONFIG)
        first.began("folm")
        first.write("folm", 2, {"reward": 0.5})
        first.finished("folm", folder / "folm")
        first.close()
        stage(folder, "sets", ("prepare", "folm"), "shard-00000.parquet")
        stage(folder, "retriever", ("prepare", "sets"), "config.json", "model.safetensors")
        write_json(folder / "evaluate" / "samples.json", [{"query": "soup", "methods": {"mmr": {"items": ["Stock"]}}}])
        second = WandbSink(folder, CONFIG)
        for name in ("sets", "retriever", "evaluate"):
            second.began(name)
            second.write(name, 0, {"reward": 0.75})
            second.finished(name, folder / name)
        second.close()
        wandb.teardown()  # finishing does not wait for the records to be on the disk; the end of W&B's process does
    return folder


def test_a_run_is_a_group_and_each_stage_one_run_of_it_however_often_it_is_resumed(run: Path) -> None:
    own = (run / "wandb-id.txt").read_text()
    begun = ["prepare", "folm", "folm", "sets", "retriever", "evaluate"]
    found = [path.name.partition(f"-{own}-")[2].removesuffix("-1") for path in run.glob("wandb/offline-run-*")]
    assert sorted(found) == sorted(begun)
    for path in run.glob("wandb/offline-run-*/run-*.wandb"):
        assert f"{CONFIG.name}-{own}".encode() in path.read_bytes(), "the group"
    (prepare,) = run.glob(f"wandb/offline-run-*-{own}-prepare/*.wandb")
    assert b"prepare/items" in prepare.read_bytes()
    assert b"folm/reward" not in prepare.read_bytes()


def recorded(run: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(run.glob("wandb/offline-run-*/run-*.wandb")))


def test_policy_sets_and_retriever_are_artifacts_with_their_lineage(run: Path) -> None:
    own, content = (run / "wandb-id.txt").read_text(), recorded(run)
    for name, folder in (("policy", "folm"), ("sets", "sets"), ("retriever", "retriever")):
        assert f"{name}-{own}".encode() in content, name
        assert file_hash(run / folder / "manifest.json").encode() in content, f"{name}: the manifest itself"
        inputs = json.loads((run / folder / "manifest.json").read_text())["inputs"]
        assert all(one["manifest"].encode() in content for one in inputs.values()), f"{name}: what it was made of"
    assert b"policy/model.safetensors" in content
    assert b"warm_start/config.json" not in content, "the policy alone"


def test_files_stay_where_they_are(run: Path) -> None:
    copies = [path for path in (run / "wandb").rglob("*") if path.is_file() and b"content of" in path.read_bytes()]
    assert copies == []


def test_sample_sets_are_tables(run: Path) -> None:
    tables = [json.loads(path.read_text()) for path in run.glob("wandb/offline-run-*/files/media/table/**/*.json")]
    rows = {tuple(row) for table in tables for row in table["data"]}
    assert ("folm", 0, "leek soup", "r4t_folm", 0.5, "Leek pie\nStock") in rows
    assert ("evaluate", None, "soup", "mmr", None, "Stock") in rows


def test_no_secret_is_in_any_byte(run: Path) -> None:
    assert [path for path in run.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()] == []
