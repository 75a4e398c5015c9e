"""The metrics file survives kills; the run directory says everything once."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.progress import Progress

from jobs import run as run_module
from jobs.run import Run, TerminalBar, save_config
from r4t.config import Config, parse_config
from r4t.tracking import MetricsFile, read_metrics


def test_a_line_per_step_is_on_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    metrics.write("folm", 1, {"reward": 0.5})
    line = json.loads(path.read_text())
    assert line["stage"] == "folm"
    assert line["step"] == 1
    assert line["values"] == {"reward": 0.5}
    assert line["time"] > 1.7e9


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    MetricsFile(tmp_path / "m.jsonl").write("s", 0, {"a": float("nan"), "b": float("inf"), "c": 1})
    assert json.loads((tmp_path / "m.jsonl").read_text())["values"] == {"a": None, "b": None, "c": 1.0}


def test_half_a_line_of_a_killed_process_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    MetricsFile(path).write("s", 1, {"a": 1})
    with path.open("a") as handle:
        handle.write('{"stage": "s", "st')
    assert [line["step"] for line in read_metrics(path)] == [1]
    MetricsFile(path).write("s", 2, {"a": 2})
    assert [line["step"] for line in read_metrics(path)] == [1, 2]


def test_a_repeated_step_counts_once_with_its_last_values(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "m.jsonl")
    for step, value in ((1, 10), (2, 20), (2, 21), (3, 30)):
        metrics.write("s", step, {"a": value})
    metrics.write("s", 3, {"validation": 5})
    lines = read_metrics(tmp_path / "m.jsonl")
    assert [(line["step"], line["values"]) for line in lines] == [
        (1, {"a": 10}),
        (2, {"a": 21}),
        (3, {"a": 30}),
        (3, {"validation": 5}),
    ]


def test_a_repeated_step_replaces_a_line_with_other_names_but_not_one_without_a_common_name(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "m.jsonl")
    metrics.write("s", 1, {"a": 1, "only_once": 2})
    metrics.write("s", 1, {"other/a": 3})
    metrics.write("s", 1, {"a": 4})
    assert [line["values"] for line in read_metrics(tmp_path / "m.jsonl")] == [{"a": 4}, {"other/a": 3}]


def test_read_metrics_of_nothing_is_empty(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "absent.jsonl") == []


class Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, dict[str, float]]] = []
        self.closed = False
        self.advances = 0

    def write(self, stage: str, step: int, values: dict[str, float]) -> None:
        self.seen.append((stage, step, dict(values)))

    def began(self, stage: str) -> None: ...

    def advanced(self) -> None:
        self.advances += 1

    def finished(self, stage: str, folder: Path) -> None: ...

    def close(self) -> None:
        self.closed = True


def test_run_logs_to_every_sink_and_prints_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sink = Recorder()
    run = Run(tmp_path / "run", Config(), (sink,))
    run.log("folm", 3, {"reward": 0.25}, "step 3 [bold] reward 0.25")
    run.log("folm", 4, {"reward": 0.5})
    run.close()
    assert sink.seen == [("folm", 3, {"reward": 0.25}), ("folm", 4, {"reward": 0.5})]
    assert sink.closed
    assert capsys.readouterr().out.splitlines() == ["step 3 [bold] reward 0.25", "folm 4  reward 0.5"]
    assert "step 3 [bold] reward 0.25" in (tmp_path / "run" / "log.txt").read_text()
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 2


def test_progress_off_a_terminal_speaks_at_intervals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "LINE_EVERY", 0.0)
    sink = Recorder()
    with Run(tmp_path, Config(), (sink,)).progress("encoding", 4) as bar:
        bar.advance()
        bar.advance(3)
    assert [line.split("  ")[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["encoding", "1/4"],
        ["encoding", "4/4"],
    ]
    assert sink.advances == 2


def test_the_time_left_is_that_of_the_pace_since_the_run_went_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0, 20)  # seconds, at every look
    monkeypatch.setattr(run_module, "time", SimpleNamespace(monotonic=lambda: next(clock), strftime=time.strftime))
    run = Run(tmp_path, Config())
    with run.progress("folm", 1000, 900) as bar:
        bar.advance(10)
    assert capsys.readouterr().out == "folm  910/1000  about 180 s left\n"
    terminal = Progress()
    TerminalBar(run, terminal, "folm", 1000, 900)
    assert (terminal.tasks[0].completed, terminal.tasks[0].speed) == (900, None)


def test_the_saved_config_is_the_resolved_one(tmp_path: Path) -> None:
    config = parse_config({"rl": {"lr": 0.001}, "data": {"items": "x.parquet", "kind": "table"}})
    save_config(tmp_path, config)
    assert parse_config(yaml.safe_load((tmp_path / "config.yaml").read_text())) == config
