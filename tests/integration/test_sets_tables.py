"""One copy of the tables per machine, made once by whoever comes first."""

import json
from pathlib import Path

import numpy as np
import pytest
from sets_reading import mapped, start_reader, write_run

from r4t.catalog.dataset import load_dataset
from r4t.config import Config, parse_config
from r4t.errors import UserError
from r4t.lineage import write_manifest
from r4t.sets import load_targets
from r4t.sets.tables import open_tables

TASKS = {"oar": {}, "wscr": {"task": "wscr", "objective": {"kind": "coverage"}}}


@pytest.fixture(params=list(TASKS))
def config(request: pytest.FixtureRequest) -> Config:
    return parse_config(TASKS[request.param])


def tables_of(run: Path) -> list[Path]:
    return sorted(path for path in (run / "sets" / ".tables").iterdir() if path.is_dir())


def test_tables_hold_what_the_shards_hold(tmp_path: Path, config: Config):
    run = tmp_path / "run"
    write_run(run, config, sets=60, items=30, dim=8)
    opened = open_tables(run / "sets", run / "prepare", config)
    loaded = load_targets(run / "sets", load_dataset(run / "prepare"), config)
    for mine, theirs in zip(
        (opened.training, opened.held_out), loaded.split(config.retriever.validation_share, config.seed), strict=True
    ):
        assert np.array_equal(mine.rows, theirs.rows)
        assert np.array_equal(mine.query, theirs.query)
        for one, other in zip(mine.draw(3, batch=16, seed=1), theirs.draw(3, batch=16, seed=1), strict=True):
            assert one.tobytes() == other.tobytes()
            assert one.dtype == np.float32
    assert opened.targets.removed == loaded.removed


def test_tables_are_made_once_and_anew_when_anything_changed(tmp_path: Path, config: Config):
    run = tmp_path / "run"
    write_run(run, config, sets=30, items=30, dim=8)
    sets, prepare = run / "sets", run / "prepare"
    first = open_tables(sets, prepare, config)
    rows = np.array(first.targets.rows)
    (folder,) = tables_of(run)
    made = (folder / "rows").stat().st_mtime_ns
    assert open_tables(sets, prepare, config).digest == first.digest
    assert (folder / "rows").stat().st_mtime_ns == made
    (folder / "rows").write_bytes(b"short")  # as a power cut may leave it
    assert np.array_equal(open_tables(sets, prepare, config).targets.rows, rows)
    stricter = config.model_copy(update={"sets": config.sets.model_copy(update={"min_reward": 0.5})})
    assert len(open_tables(sets, prepare, stricter).targets) < len(rows)
    assert len(tables_of(run)) == 2
    nothing = config.model_copy(update={"sets": config.sets.model_copy(update={"min_reward": 2.0})})
    with pytest.raises(UserError, match=r"removed: .*min_reward"):
        open_tables(sets, prepare, nothing)
    assert len(tables_of(run)) == 2


def test_sets_made_over_another_prepare_folder_are_refused(tmp_path: Path):
    config, run = parse_config({}), tmp_path / "run"
    write_run(run, config, sets=30, items=30, dim=8, lineage={"prepare_sha256": "of another"})
    with pytest.raises(UserError, match=r"another catalogue or encoder.*r4t sets reground"):
        open_tables(run / "sets", run / "prepare", config)


@pytest.mark.parametrize("damage", ["flip", "cut", "lose"])
def test_a_changed_file_of_a_finished_stage_is_named(tmp_path: Path, damage: str):
    config, run = parse_config({}), tmp_path / "run"
    write_run(run, config, sets=30, items=30, dim=8)
    names = [path.name for path in (run / "sets").iterdir()]
    write_manifest(run / "sets", stage="sets", config={}, inputs={}, files=names, metrics={})
    path = run / "sets" / "shard-00001.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content[: len(content) // (2 if damage == "cut" else 1)])
    if damage == "lose":
        path.unlink()
    with pytest.raises(UserError, match=r"shard-00001\.parquet is missing, cut or changed.*--stage sets"):
        open_tables(run / "sets", run / "prepare", config)
    assert tables_of(run) == []


@pytest.mark.slow  # two processes that import PyTorch
def test_two_processes_hold_one_copy(tmp_path: Path, config: Config):
    run = tmp_path / "run"
    write_run(run, config, sets=3_000, items=30_000, dim=128)
    vectors = 30_000 * 128 * (4 if config.task == "oar" else 2 * 2)  # items in float32, or two shards' texts in half
    readers = [start_reader(run) for _ in range(2)]
    try:
        said = [reader.stdout.readline() for reader in readers if reader.stdout]
        assert said[0] == said[1] != ""
        held = [mapped(reader.pid, run) for reader in readers]
    finally:
        for reader in readers:
            reader.communicate()
    assert len(tables_of(run)) == 1
    for one in held:
        assert one["Rss"] > 0.6 * vectors, held  # it did read (nearly) all of the table
        assert one["Pss"] < 0.6 * one["Rss"], held  # and shares every page with the other
        assert one["Private_Clean"] + one["Private_Dirty"] < 0.1 * one["Rss"], held
    description = json.loads((tables_of(run)[0] / "tables.json").read_text())
    assert description["arrays"].get("table", ["float16"])[0] == "float16"
