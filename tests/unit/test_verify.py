"""`r4t verify` finds any one byte that changed in any file of a run, and follows no name or link out of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jobs.run import Run, save_config
from r4t import lineage
from r4t.config import Config
from r4t.errors import UserError
from r4t.verify import RUN_SEAL, seal_run, verify
from tests.integration.small_run import make_run, make_sets, settings

OFFSETS = 12  # of each file, its first and last byte among them


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real stage folders, with log, metrics, configuration, a cache and a seal."""
    folder = tmp_path_factory.mktemp("sealed") / "run"
    run = make_run(folder, settings())
    save_config(folder, run.config)
    run.log("folm", 1, {"reward": 0.5})
    make_sets(run, folder / "sets")
    cache = folder / "sets" / ".tables" / "1"
    cache.mkdir(parents=True)
    (cache / "rows").write_bytes(b"0123456789")
    run.close()
    seal_run(folder)
    return folder


def test_every_byte_counts_in_every_file(finished: Path) -> None:
    assert verify(finished) == []
    rng = np.random.default_rng(0)
    files = sorted(path for path in finished.rglob("*") if path.is_file())
    assert {"config.yaml", "metrics.jsonl", "log.txt", RUN_SEAL, "manifest.json", "rows"} <= {p.name for p in files}
    unseen = []
    for path in files:
        whole = path.read_bytes()
        assert whole, path
        offsets = {0, len(whole) - 1, *rng.integers(0, len(whole), OFFSETS).tolist()}
        if path.name in (RUN_SEAL, "manifest.json"):
            offsets |= set(range(len(whole) - 90, len(whole)))  # the seal itself
        for offset in offsets:
            for flip in (1, 0x80):
                path.write_bytes(whole[:offset] + bytes([whole[offset] ^ flip]) + whole[offset + 1 :])
                if not verify(finished):
                    unseen.append((path, offset, flip))
        path.write_bytes(whole)
    assert unseen == []
    assert verify(finished) == []


def test_a_cache_may_be_deleted_and_a_file_may_not(finished: Path) -> None:
    for path, problems in ((finished / "sets/.tables/1/rows", 0), (finished / "log.txt", 1)):
        held = path.read_bytes()
        path.unlink()
        assert len(verify(finished)) == problems
        path.write_bytes(held)


def test_opening_a_run_takes_its_seal_away(tmp_path: Path) -> None:
    make_run(tmp_path, settings()).close()
    seal_run(tmp_path)
    Run(tmp_path, Config()).close()
    assert not (tmp_path / RUN_SEAL).exists(), "what it recorded is about to change"


def test_what_the_client_of_w_and_b_writes_is_not_sealed(tmp_path: Path) -> None:
    make_run(tmp_path, settings()).close()
    mine, theirs = tmp_path / "notes" / "wandb" / "mine.txt", tmp_path / "wandb" / "logs" / "debug.log"
    for path in (mine, theirs):
        path.parent.mkdir(parents=True)
        path.write_text("as it stands")
    seal_run(tmp_path)
    theirs.unlink()
    assert verify(tmp_path) == []
    mine.unlink()
    assert len(verify(tmp_path)) == 1


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x"])
def test_names_that_leave_the_folder_are_a_finding(tmp_path: Path, name: str) -> None:
    stage = tmp_path / "run" / "stage"
    (tmp_path / "run" / "x").mkdir(parents=True)
    manifest = {
        "schema": 1,
        "files": {name: {"sha256": "0" * 64, "bytes": 0}},
        "inputs": {},
    }
    lineage.write_json(stage / "manifest.json", manifest)
    (problem,) = verify(stage)
    assert "leaves its folder" in problem


def test_links_in_a_stage_are_a_finding_and_are_not_followed(tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    (stage / "deep").mkdir(parents=True)
    (stage / "deep" / "a.txt").write_text("kept")
    made = {"stage": "s", "config": {}, "inputs": {}, "files": ["deep/a.txt"], "metrics": {}}
    lineage.write_manifest(stage, **made)
    assert verify(stage) == []
    (stage / "deep").rename(tmp_path / "elsewhere")
    (stage / "deep").symlink_to(tmp_path / "elsewhere")
    (problem,) = verify(stage)
    assert "is a link" in problem
    lineage.clear_partial(stage)
    (stage / ".partial-x").symlink_to(tmp_path / "elsewhere")
    lineage.clear_partial(stage)
    assert (tmp_path / "elsewhere" / "a.txt").read_text() == "kept", "the link went, not what it pointed at"
    assert not (stage / ".partial-x").is_symlink()


def test_a_log_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.txt").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="is a link and would be written through"):
        Run(tmp_path / "run", Config())
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"schema": 2}', '{"schema": 1, "files": [], "inputs": {}}', "[" * 9999]
)
def test_what_is_no_manifest_is_a_finding(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    assert len(verify(tmp_path)) == 1


def test_a_manifest_of_before_seals_still_verifies(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": 1, "files": {}, "inputs": {}}))
    assert verify(tmp_path) == []
