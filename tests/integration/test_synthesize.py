"""The synthesis stage: a real Ray Data job over a real vLLM engine, killed and resumed."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_run import TRAIN, make_run, settings

from cluster.session import session
from jobs import synthesize
from r4t.errors import UserError
from r4t.lineage import read_manifest
from r4t.sets.reader import shard_paths
from r4t.sets.store import read_lineage, read_shard
from r4t.verify import verify

pytestmark = pytest.mark.slow

DRIVER = """
import sys
from pathlib import Path
from cluster.session import session
from jobs import synthesize
from jobs.run import Run
from r4t.config import Config

folder = Path(sys.argv[1])
config = Config.model_validate_json((folder / "config.json").read_text())
with session(config):
    synthesize.main(config, Run(folder, config))
"""


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in shard_paths(folder)}


def test_killed_synthesis_makes_the_missing_shards_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = settings()
    run = make_run(tmp_path / "run", config)
    sets = run.folder / "sets"
    (run.folder / "config.json").write_text(config.model_dump_json())
    (run.folder / "driver.py").write_text(DRIVER)
    driver = subprocess.Popen([sys.executable, str(run.folder / "driver.py"), str(run.folder)])
    deadline = time.monotonic() + 300
    while len(shard_paths(sets)) < 2:
        assert driver.poll() is None, "the run ended before its second shard"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(1)  # its workers end with it
    before = stamps(sets)
    assert len(before) < 6 + 6
    damaged = sorted(before)[0]
    content = (sets / damaged).read_bytes()
    (sets / damaged).write_bytes(content[:-100])
    for path, skew in zip(shard_paths(sets), itertools.cycle((3e9, 1e9)), strict=False):  # as by a clock that is wrong
        os.utime(path, (skew, skew))
    before = stamps(sets)

    with session(config):
        synthesize.main(config, run)
        after = stamps(sets)
        kept = {name for name in before if before[name] == after[name]}
        assert kept == set(before) - {damaged}
        assert "shards stand already" in (run.folder / "log.txt").read_text()
        assert (sets / damaged).read_bytes() == content  # made again, to the byte

        synthesize.main(config, run)
        assert stamps(sets) == after
        assert "already finished" in capsys.readouterr().out
    check_shards(sets, policy="policy", version=12)
    check_shards(sets / "zero_shot", policy="warm_start", version=0)


def check_shards(folder: Path, *, policy: str, version: int) -> None:
    """C34: training queries alone, each with all its samples, in shards of three queries, from the policy named."""
    assert verify(folder) == []
    paths = shard_paths(folder)
    assert len(paths) == -(-TRAIN // 3)
    shards = [read_shard(path) for path in paths]
    query, sample = (np.concatenate([getattr(shard, name) for shard in shards]) for name in ("query", "sample"))
    assert query.tolist() == [q for q in range(TRAIN) for _ in range(2)]
    assert sample.tolist() == [0, 1] * TRAIN
    lineages = [read_lineage(path) for path in paths]
    assert {lineage["policy"] for lineage in lineages} == {policy}
    assert len({lineage["policy_sha256"] for lineage in lineages}) == 1
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest["metrics"]["answers"] == 2 * TRAIN
    assert manifest["config"]["sets"]["temperature"] == 0.9
    with pq.ParquetFile(paths[0]) as file:
        assert set(file.read(["policy_version"])["policy_version"].to_pylist()) == {version}


def test_a_policy_that_writes_nothing_readable_is_stopped(tmp_path: Path):
    config = settings()
    config = config.model_copy(update={"sets": config.sets.model_copy(update={"check_after": 4})})
    run = make_run(tmp_path / "run", config)
    with (
        pytest.raises(UserError, match=r"(?s)of \d+ answers .*policy to [6-9] queries could be read.*sets\.min_parsed"),
        session(config),
    ):
        synthesize.main(config, run)
    assert not (run.folder / "sets" / "manifest.json").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_stops_cleanly_and_the_run_goes_on_with_more_room(tmp_path: Path):
    config = settings()
    config = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"zero_shot_diffusion": False})})
    run = make_run(tmp_path / "run", config)
    sets = run.stage_folder("sets")
    mount = ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(sets)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this system mounts no file system for tests")
    try:
        with pytest.raises(UserError, match="the disk is full"), session(config):
            synthesize.main(config, run)
        before = stamps(sets)
        assert 0 < len(before) < 6
        assert not list(sets.rglob(".partial-*"))
        subprocess.run(["mount", "-o", "remount,size=8m", str(sets)], check=True)
        with session(config):
            synthesize.main(config, run)
        assert {name: stamps(sets)[name] for name in before} == before
        check_shards(sets, policy="policy", version=12)
    finally:
        subprocess.run(["umount", str(sets)], check=True)
