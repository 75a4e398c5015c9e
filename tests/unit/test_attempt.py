"""Two attempts of one job: the newer takes the run directory over, the older stops before it writes more."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from jobs import attempt
from jobs.pipeline import locked
from jobs.run import Run
from r4t.config import Config
from r4t.errors import UserError


def test_without_attempts_nothing_is_signed_or_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(attempt.VARIABLE, raising=False)
    with locked(tmp_path), pytest.raises(UserError, match="another process"), locked(tmp_path):
        pass
    assert not (tmp_path / attempt.FILE).exists()


def test_an_older_attempt_stops_at_its_next_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(attempt.VARIABLE, "cluster-a")
    attempt.claim(tmp_path)
    run = Run(tmp_path, Config())
    run.log("folm", 1, {"reward": 1.0})
    (tmp_path / attempt.FILE).write_text("cluster-b")
    before = (tmp_path / "metrics.jsonl").read_text(), (tmp_path / "log.txt").read_text()
    with pytest.raises(UserError, match=r"cluster-b has taken over .* cluster-a, stops"):
        run.log("folm", 2, {"reward": 2.0})
    with pytest.raises(UserError, match="cluster-b has taken over"):
        run.say("still here")
    assert before == ((tmp_path / "metrics.jsonl").read_text(), (tmp_path / "log.txt").read_text())
    run.close()


def test_a_newer_attempt_signs_first_and_waits_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(attempt.VARIABLE, "cluster-a")
    entered = threading.Event()

    def newer() -> None:
        with locked(tmp_path):
            entered.set()

    with locked(tmp_path):
        assert (tmp_path / attempt.FILE).read_text() == "cluster-a"
        monkeypatch.setenv(attempt.VARIABLE, "cluster-b")
        thread = threading.Thread(target=newer)
        thread.start()
        while (tmp_path / attempt.FILE).read_text() != "cluster-b":
            pass
        assert not entered.wait(0.5)
    assert entered.wait(10)
    thread.join()


def test_patience_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(attempt.VARIABLE, "cluster-a")
    monkeypatch.setattr(attempt, "TAKEOVER", 0.3)
    with locked(tmp_path):
        monkeypatch.setenv(attempt.VARIABLE, "cluster-b")
        with pytest.raises(UserError, match="another process"), locked(tmp_path):
            pass


def test_a_second_process_of_the_same_attempt_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(attempt.VARIABLE, "cluster-a")
    with locked(tmp_path):
        assert attempt.claim(tmp_path) == 0.0
        with pytest.raises(UserError, match="another process"), locked(tmp_path):
            pass
