"""Which stages a run has: a student is one of them unless it is left out, and no later stage needs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import status
from jobs.pipeline import STAGES, check_stage, run_pipeline, stages_of
from jobs.run import save_config
from r4t.config import Config
from r4t.errors import UserError
from r4t.lineage import write_manifest
from r4t.verify import verify

WITHOUT = [name for name in STAGES if name != "distill"]


def configured(student: bool) -> Config:
    return Config.model_validate({"distill": {"enabled": student}})


def finished(folder: Path, names: list[str], config: Config) -> Path:
    """A run directory in which these stages have their manifest, and no files."""
    for name in names:
        (folder / name).mkdir(parents=True)
        write_manifest(folder / name, stage=name, config={}, inputs={}, files=[], metrics={"seconds": 1.0})
    save_config(folder, config)
    return folder


def test_a_student_is_part_of_a_run_unless_it_is_left_out() -> None:
    assert stages_of(Config()) == check_stage("all", Config()) == list(STAGES)
    assert stages_of(configured(student=False)) == WITHOUT
    assert check_stage("distill", configured(student=False)) == ["distill"]
    with pytest.raises(UserError, match="unknown stage 'distil'"):
        check_stage("distil", Config())


@pytest.mark.parametrize("student", [False, True])
def test_a_run_that_was_finished_without_a_student_is_finished(
    tmp_path: Path, student: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished(tmp_path / "run", WITHOUT, configured(student=False))
    run_pipeline(configured(student), folder)
    assert "is finished, nothing to do" in capsys.readouterr().out


def test_a_run_that_was_stopped_after_its_last_stage_is_sealed_by_the_next_command(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run", list(STAGES), Config())
    (folder / "log.txt").write_text("done\n")
    run_pipeline(Config(), folder)
    assert verify(folder) == []
    (folder / "log.txt").write_text("gone\n")
    run_pipeline(Config(), folder)
    assert [problem for problem in verify(folder) if "log.txt" in problem], "what is sealed already stays so"


@pytest.mark.parametrize(
    ("student", "made", "shown", "whole"),
    [
        (True, WITHOUT, list(STAGES), True),
        (False, WITHOUT, WITHOUT, True),
        (False, list(STAGES), list(STAGES), True),
        (True, WITHOUT[:4], list(STAGES), False),
    ],
)
def test_status_shows_a_student_that_is_wanted_or_there(
    tmp_path: Path, student: bool, made: list[str], shown: list[str], whole: bool
) -> None:
    found = status.describe(finished(tmp_path / "run", made, configured(student)))
    assert list(found["stages"]) == shown
    assert found["finished"] is whole


def test_evaluation_needs_no_student(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run", ["prepare", "folm", "sets"], Config())
    with pytest.raises(UserError, match="stage 'evaluate' needs retriever in"):
        run_pipeline(Config(), folder, stage="evaluate")
