"""The plan of stage 2 on many engines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.synthesis_plan import plan, show
from r4t.config import Config, parse_config
from r4t.errors import UserError


def measured(folder: Path, **engine: float) -> Path:
    rates = {"what": "engine", "engine_rows_per_second": 100.0, "pipeline_adds": 0.25} | engine
    replay = {"what": "replay", "rows_per_second": 20_000.0, "bytes_per_row": 60.0}
    path = folder / "measured.json"
    path.write_text(json.dumps({"results": [{"what": "replay", "rows_per_second": None}, replay, rates]}))
    return path


def paper(**sets: int) -> Config:
    return parse_config({"sets": {"samples_per_query": 128, **sets}})


def test_the_plan_follows_from_the_rates(tmp_path: Path) -> None:
    found = plan(paper(shard_answers=1024), measured(tmp_path), 256, queries=8 * 256 * 10)
    assert (found["answers"], found["shards"]) == (20_480 * 128, 2560)
    assert found["hours"] == pytest.approx(10 * 1024 / 100 * 1.25 / 3600)
    assert found["engines_busy"] == pytest.approx(1)
    assert found["scorers"] == 2  # 25,600 answers/s at 20,000 a scorer
    assert found["disk_gb"] == pytest.approx(20_480 * 128 * 60 / 1e9)
    assert found["advice"] == []
    assert "2560 shards" in show(found)


def test_one_shard_too_many_costs_a_whole_round_and_too_few_are_named(tmp_path: Path) -> None:
    rates = measured(tmp_path)
    full, over = (plan(paper(shard_answers=1024), rates, 256, queries=8 * n) for n in (256, 257))
    assert over["hours"] == pytest.approx(2 * full["hours"])
    assert over["engines_busy"] == pytest.approx(257 / 512)
    assert "sets.shard_answers" in show(over)


def test_the_configuration_says_how_many_queries(tmp_path: Path) -> None:
    assert plan(Config(), measured(tmp_path), 1)["queries"] == 0.8 * Config().data.n_queries


def test_a_missing_measurement_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"benchmarks\.synthesis RUN --engine"):
        plan(Config(), tmp_path / "none.json", 1)
    path = tmp_path / "other.json"
    path.write_text('{"results": [{"what": "replay"}]}')
    with pytest.raises(UserError, match="no rates of engine and replay"):
        plan(Config(), path, 1)
