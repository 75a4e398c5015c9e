"""A study's file, the order of its runs, and what counts as done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT

from benchmarks.study import state
from benchmarks.study.claims import load_claims
from benchmarks.study.plan import Job, jobs_of, load_study
from benchmarks.study.runner import Runner
from r4t.config import load_config
from r4t.errors import UserError
from r4t.evaluation.evaluate import METHODS
from r4t.lineage import write_json, write_manifest

FOLDER = ROOT / "benchmarks" / "study"
CELLS: dict[str, Any] = {
    "late": {"part": "terms", "label": "g", "config": "x.yaml", "start": "base", "seeds": [0, 1], "stages": ["folm"]},
    "base": {"part": "table1", "label": "A", "config": "x.yaml", "seeds": [0, 1], "overrides": {"rl.steps": 3}},
}


def study(folder: Path, **changed: Any) -> Path:
    raw = {"name": "s", "title": "S", "overrides": {"fanout.k": 9, "rl.steps": 1}, "cells": CELLS, **changed}
    (folder / "s.yaml").write_text(yaml.safe_dump(raw))
    return folder / "s.yaml"


def jobs(path: Path, only: str | None = None) -> list[Job]:
    return jobs_of(load_study(path), path.parent, only)


def test_runs_come_in_order_after_their_starts(tmp_path: Path) -> None:
    path = study(tmp_path, order=["late-1"])
    assert [job.name for job in jobs(path)] == ["base-1", "late-1", "base-0", "late-0"]
    assert [job.name for job in jobs(path, "late-0")] == ["base-0", "late-0"]
    assert jobs(path)[0].settings() == ["fanout.k=9", "rl.steps=3", "seed=1"]
    with pytest.raises(UserError, match="no run matches 'nothing'"):
        jobs(path, "nothing")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"start": "nowhere"}, "starts from 'nowhere', which is no cell"),
        ({"seeds": [0, 5]}, "seed 5, which its start 'base' has not"),
        ({"stages": ["evaluate", "folm"]}, "stages must stand in the order"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_a_file_that_cannot_be_run_is_refused(tmp_path: Path, cell: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_study(study(tmp_path, cells={**CELLS, "late": {**CELLS["late"], **cell}}))


@pytest.mark.parametrize("name", ["tiny", "smoke", "smollm2"])
def test_every_run_of_the_shipped_studies_has_a_valid_configuration(name: str) -> None:
    path = FOLDER / f"{name}.yaml"
    for job in jobs(path):
        config = load_config(job.config, job.settings())
        assert config.seed == job.seed
        assert set(job.cell.methods) <= set(METHODS)
    keys = load_study(path).cells.keys()
    if name == "tiny":
        assert {test.cell for claim in load_claims() for test in claim.tests if test.cell} <= keys


def evaluated(run: Path, *methods: str) -> None:
    write_json(run / "evaluate" / "metrics.json", {"methods": {name: {} for name in methods}})
    (run / "evaluate" / "values.safetensors").write_bytes(b"")
    files = ["metrics.json", "values.safetensors"]
    write_manifest(run / "evaluate", stage="evaluate", config={}, inputs={}, files=files, metrics={})


def test_an_evaluation_is_done_once_it_covers_the_methods(tmp_path: Path) -> None:
    cell = {**CELLS["base"], "seeds": [0], "stages": ["evaluate"], "methods": ["mmr", "random"]}
    (job,) = jobs(study(tmp_path, cells={"base": cell}))
    assert state.missing(job, tmp_path) == ["evaluate"]
    evaluated(tmp_path / "base-0", "random")
    assert state.missing(job, tmp_path) == ["evaluate"]
    evaluated(tmp_path / "base-0", "random", "mmr", "popular")
    assert state.missing(job, tmp_path) == []
    assert state.show(state.describe([job], tmp_path)).endswith(
        "1 of 1 runs are whole (+ finished, ! failed, . missing)"
    )


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    cells = {
        "absent": {**CELLS["base"], "config": "absent.yaml", "seeds": [0], "stages": ["prepare"]},
        "after": {**CELLS["late"], "start": "absent", "seeds": [0]},
        "good": {**CELLS["base"], "config": str(ROOT / "configs/quickstart.yaml"), "seeds": [0], "stages": ["prepare"]},
    }
    path = study(tmp_path, cells=cells)
    listed = jobs(path)
    with (tmp_path / "said").open("w") as out:
        assert Runner(path, tmp_path / "runs", out=out).run(listed) == 2
    entries = {entry["run"]: entry for entry in state.describe(listed, tmp_path / "runs")}
    assert "no config at" in entries["absent-0"]["failed"]["says"]
    assert entries["absent-0"]["stages"] == {"prepare": "failed"}
    assert "no warm-started policy" in entries["after-0"]["failed"]["says"]
    assert entries["good-0"] == {"run": "good-0", "stages": {"prepare": "finished"}, "failed": None}
    said = (tmp_path / "said").read_text()
    assert said.count("FAILED") == 2
    times = (tmp_path / "runs" / "times.jsonl").read_text().splitlines()
    assert len(times) == 1
    assert state.seconds_left([(listed[-1], "prepare"), (listed[0], "folm")], tmp_path / "runs")[1] == 1
