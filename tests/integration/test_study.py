"""A study over real runs: its report from their files alone, and a runner that is stopped, killed and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT, TINY, environment, wait_for

from benchmarks.study.archive import archive
from benchmarks.study.plan import Probe, Study, jobs_of, load_study
from benchmarks.study.probe import probe
from benchmarks.study.report import write_report
from benchmarks.study.results import collect
from jobs import evaluate
from jobs.policies import PolicySwitch
from r4t.errors import UserError
from r4t.lineage import file_hash, is_finished, read_json, write_manifest
from r4t.tracking import read_metrics
from r4t.verify import verify
from tests.integration.test_evaluate import ScriptedEngine, make_run

METHODS = ("random", "no_fanout", "mmr", "zero_shot", "r4t_folm", "r4t_diffusion")


def a_study(folder: Path, cells: dict[str, Any], **more: Any) -> Path:
    path = folder / "micro.yaml"
    path.write_text(yaml.safe_dump({"name": "micro", "title": "Micro", "cells": cells, **more}))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """Two evaluated runs of table 1, one of table 2, and one that has not begun."""
    folder = tmp_path_factory.mktemp("study")
    cell = {"config": "x.yaml", "methods": list(METHODS), "stages": ["evaluate"]}
    cells = {
        "oar": {**cell, "part": "table1", "label": "Dishes", "seeds": [0, 1, 2]},
        "wscr": {**cell, "part": "table2", "label": "Menus"},
    }
    study = a_study(folder, cells)
    for name, task in (("oar-0", "oar"), ("oar-1", "oar"), ("wscr-0", "wscr")):
        run, engine = make_run(folder / "runs" / name, task), ScriptedEngine()
        policies = PolicySwitch(run.folder / "folm", engine.generate, engine.swap)
        config = run.config.model_copy(update={"seed": int(name[-1])})
        evaluate.evaluate(config, run, METHODS, policies)
        run.close()
    return load_study(study), folder


def report(finished: tuple[Study, Path], out: Path) -> dict[str, bytes]:
    study, folder = finished
    paths = write_report(study, jobs_of(study, folder), folder / "runs", out)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def test_the_same_runs_give_the_same_bytes_and_every_figure(finished: tuple[Study, Path], tmp_path: Path) -> None:
    first, again = report(finished, tmp_path / "a"), report(finished, tmp_path / "b")
    assert first == again
    assert set(first) == {"results_micro.md", "results_micro_sets.md", "figures/study-micro-judge.svg"}
    page = first["results_micro.md"].decode()
    assert "**Missing: 1 of 4 runs** are not whole: oar-2." in page
    assert "seeds 0, 1 (n = 2)" in page
    assert "| R4T-Diffusion |" in page
    assert "What drawing at random expects: recall 0." in page


def test_an_archive_holds_what_a_report_reads_and_no_more(finished: tuple[Study, Path], tmp_path: Path) -> None:
    study, folder = finished
    jobs = jobs_of(study, folder)
    whole = ["oar-0", "wscr-0", "oar-1"]
    assert archive(jobs, folder / "runs", tmp_path / "kept") == whole
    assert archive(jobs, folder / "runs", tmp_path / "kept") == whole, "and again into the same folder"
    paths = write_report(study, jobs, tmp_path / "kept", tmp_path / "report")
    of_archive = {path.relative_to(tmp_path / "report").as_posix(): path.read_bytes() for path in paths}
    assert of_archive == report(finished, tmp_path / "of_runs")
    names = {path.name for path in (tmp_path / "kept" / "oar-0").rglob("*") if path.is_file()}
    assert names == {"manifest.json", "metrics.json", "values.safetensors", "samples.json", "metrics.jsonl"}


def test_a_table_holds_the_means_of_the_runs(finished: tuple[Study, Path], tmp_path: Path) -> None:
    study, folder = finished
    page = report(finished, tmp_path)["results_micro.md"].decode()
    cells = [
        read_json(folder / "runs" / f"oar-{seed}" / "evaluate" / "metrics.json")["methods"]["mmr"] for seed in (0, 1)
    ]
    mean = sum(cell["reward"]["mean"] for cell in cells) / 2
    row = next(line for line in page.splitlines() if line.startswith("| MMR |"))
    assert f"| MMR | {mean:.3f} ± " in row
    values = collect(study, jobs_of(study, folder), folder / "runs")["oar"].matrix("r4t_folm", "reward")
    assert values is not None
    assert values.shape == (2, 12)


def test_a_probe_times_every_method_and_shows_sets_for_queries_of_ones_own(
    finished: tuple[Study, Path], tmp_path: Path
) -> None:
    study, folder = finished
    run = folder / "runs" / "oar-0"
    with pytest.raises(UserError, match="no finished retriever"):
        probe(run, study.probe)
    for stage in ("folm", "retriever"):
        write_manifest(run / stage, stage=stage, config={}, inputs={}, files=[], metrics={})
    engine = ScriptedEngine()
    settings = Probe(batches=(1, 2), repeats=1, queries={"recipe": ("a walnut thing", "soup for two")})
    probe(run, settings, PolicySwitch(run / "folm", engine.generate, engine.swap))

    sets = read_json(run / "probe" / "sets.json")
    assert [entry["query"] for entry in sets] == ["a walnut thing", "soup for two"]
    assert len(sets[0]["methods"]["r4t_folm"]["subqueries"]) == len(sets[0]["methods"]["mmr"]["items"]) == 4
    cells = collect(study, [replace(job, stages=("probe",)) for job in jobs_of(study, folder)], folder / "runs")
    assert cells["oar"].batches == [1, 2]
    whole, own = (cells["oar"].latency("r4t_diffusion", 2, what) for what in ("p50", "own_p50"))
    assert whole is not None
    assert own is not None
    assert 0 < own < whole
    assert cells["oar"].latency("zero_shot", 2) is None
    page = report(finished, tmp_path)
    assert "figures/study-micro-latency.svg" in page
    assert b"### a walnut thing" in page["results_micro_sets.md"]
    assert verify(run / "probe") == []


FEW_ACTORS = {"rollout.engine": "hf", "rollout.workers": 1, "learner.ranks": 1}  # what starts fastest
STEPS = {"rl.steps": 6, "rl.checkpoint_every": 1, "rl.validate_every": 6}
CELL = {"config": str(TINY), "stages": ["prepare", "folm"], "overrides": STEPS | FEW_ACTORS}


def start(study: Path, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.study", "run", str(study), "--dir", str(folder)]
    with (folder.parent / "said.txt").open("ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT, env=environment(), start_new_session=True)


def steps(run: Path) -> int:
    path = run / "metrics.jsonl"
    return sum(line["stage"] == "folm" for line in read_metrics(path)) if path.is_file() else 0


@pytest.mark.slow
def test_a_study_that_is_killed_and_one_that_is_stopped_go_on(tmp_path: Path) -> None:
    base = {**CELL, "part": "terms", "label": "g"}
    study = a_study(tmp_path, {"base": base, "other": {**base, "start": "base"}})
    folder = tmp_path / "runs"

    killed = start(study, folder)
    wait_for("a step of base", lambda: steps(folder / "base-0") >= 1, timeout=600)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()

    stopped = start(study, folder)  # lets the orphaned stage finish, and goes on with the other run
    wait_for("a step of other", lambda: steps(folder / "other-0") >= 1, timeout=600)
    stopped.terminate()
    assert stopped.wait(timeout=120) == 128 + signal.SIGTERM
    assert is_finished(folder / "base-0" / "folm")
    assert not is_finished(folder / "other-0" / "folm")
    done = file_hash(folder / "base-0" / "folm" / "manifest.json")
    reached = steps(folder / "other-0")
    assert reached < 6

    assert start(study, folder).wait(timeout=600) == 0, (tmp_path / "said.txt").read_text()
    assert file_hash(folder / "base-0" / "folm" / "manifest.json") == done, "a finished stage is not done again"
    assert steps(folder / "base-0") == steps(folder / "other-0") == 6, "no step is done twice"
    weights = [folder / run / "folm" / "warm_start" / "model.safetensors" for run in ("base-0", "other-0")]
    assert file_hash(weights[0]) == file_hash(weights[1])
    assert "waiting for the process that still works in it" in (tmp_path / "said.txt").read_text()

    begun = time.monotonic()
    assert start(study, folder).wait(timeout=60) == 0
    assert time.monotonic() - begun < 60
