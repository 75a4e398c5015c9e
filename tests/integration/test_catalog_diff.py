"""`r4t catalog diff`: what a changed catalogue does to a run's targets, on prepared folders."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from jobs import prepare
from jobs.cli import app
from jobs.run import Run
from r4t.config import parse_config
from r4t.errors import UserError

NAMES = [f"{how} {what}" for how in ("grilled", "baked", "raw") for what in ("beef", "salmon", "apple", "leek")]


def prepared(folder: Path, names: list[str], dim: int = 16) -> Path:
    folder.mkdir()
    pq.write_table(pa.table({"item_id": names, "text": names}), folder / "items.parquet")
    data = {"kind": "table", "items": str(folder / "items.parquet"), "n_queries": 60}
    config = parse_config({"data": data, "encoder": {"dim": dim}})
    run = Run(folder, config)
    prepare.main(config, run)
    run.close()
    return folder


def test_it_counts_items_and_the_queries_whose_nearest_item_changed(tmp_path: Path) -> None:
    old, new = prepared(tmp_path / "old", NAMES), prepared(tmp_path / "new", [*NAMES[3:], "winter breakfast"])
    result = CliRunner().invoke(app, ["catalog", "diff", str(old), str(new), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert (found["added"], found["removed"], found["kept"]) == (1, 3, 9)
    assert found["targets"] == 60
    assert 0 < found["moved"] < 60
    assert found["moved_share"] == pytest.approx(found["moved"] / 60)
    same = CliRunner().invoke(app, ["catalog", "diff", str(old), str(old)])
    assert "0 of 60 queries (OLD has no training sets) have another nearest item (0.0%)" in same.output


def test_catalogues_of_two_widths_do_not_compare(tmp_path: Path) -> None:
    old, new = prepared(tmp_path / "old", NAMES), prepared(tmp_path / "new", NAMES, dim=8)
    result = CliRunner().invoke(app, ["catalog", "diff", str(old), str(new)])
    assert isinstance(result.exception, UserError)
    assert "16 and 8 dimensions: encode both alike" in str(result.exception)
    unprepared = CliRunner().invoke(app, ["catalog", "diff", str(old), str(tmp_path)])
    assert "run `r4t run CONFIG --stage prepare` first" in str(unprepared.exception)
