"""A run's directory, and everything a stage says while it works."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jobs import attempt
from r4t.config import Config
from r4t.errors import UserError, printable
from r4t.full_disk import LineFile
from r4t.lineage import atomic_path
from r4t.tracking import MetricsFile, Sink
from r4t.verify import RUN_SEAL

LINE_EVERY = 10.0  # seconds between progress lines where there is no terminal


class Bar(Protocol):
    """Progress of one loop."""

    def advance(self, n: int = 1) -> None: ...


class Run:
    """One run directory: `config.yaml`, `metrics.jsonl`, `log.txt` and a folder per stage."""

    def __init__(self, folder: Path, config: Config, sinks: tuple[Sink, ...] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("log.txt", "metrics.jsonl"):
            if (folder / name).is_symlink():
                raise UserError(f"{folder / name} is a link and would be written through: remove it")
        (folder / RUN_SEAL).unlink(missing_ok=True)  # until `seal_run`, what is below changes
        self.folder = folder
        self.config = config
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._log = LineFile(folder / "log.txt")
        self._sinks: tuple[Sink, ...] = (MetricsFile(folder / "metrics.jsonl"), *sinks)

    def stage_folder(self, name: str) -> Path:
        """The stage's folder, made if need be."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def log(self, stage: str, step: int, values: Mapping[str, float], line: str | None = None) -> None:
        """Records one step's numbers everywhere, and prints `line` (by default the numbers) as its one console line."""
        attempt.check(self.folder)
        for sink in self._sinks:
            sink.write(stage, step, values)
        if line is None:
            line = f"{stage} {step}  " + "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.say(line)

    def began(self, stage: str) -> None:
        """Tells the sinks that a stage begins, or goes on."""
        for sink in self._sinks:
            sink.began(stage)

    def advanced(self) -> None:
        """Tells the sinks that the stage goes on, for loops that have no numbers of their own."""
        for sink in self._sinks:
            sink.advanced()

    def finished(self, stage: str) -> None:
        """Tells the sinks that a stage has written its manifest."""
        for sink in self._sinks:
            sink.finished(stage, self.folder / stage)

    def say(self, text: str) -> None:
        """Prints a line and keeps it, with the time, in `log.txt`. UserError once a newer attempt owns the run, and
        where the disk is full."""
        attempt.check(self.folder)
        text = printable(text)
        self._console.print(text, markup=False)
        self._log.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")

    @contextmanager
    def progress(self, description: str, total: int, done: int = 0) -> Iterator[Bar]:
        """A bar with the time left on a terminal; elsewhere a line about every ten seconds. `done` of `total` stand
        from before, and tell nothing of the pace.
        """
        if not self._console.is_terminal:
            yield LineBar(self, description, total, done)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            yield TerminalBar(self, progress, description, total, done)

    def close(self) -> None:
        """Closes the files and sinks."""
        for sink in self._sinks:
            sink.close()
        self._log.close()


class TerminalBar:
    def __init__(self, run: Run, progress: Progress, description: str, total: int, done: int) -> None:
        self._run, self._progress = run, progress
        self._task = progress.add_task(description, total=total, completed=done)

    def advance(self, n: int = 1) -> None:
        self._progress.advance(self._task, n)
        self._run.advanced()


class LineBar:
    def __init__(self, run: Run, description: str, total: int, done: int) -> None:
        self._run, self._description, self._total = run, description, total
        self._done = self._before = done
        self._start = self._spoke = time.monotonic()

    def advance(self, n: int = 1) -> None:
        self._done += n
        self._run.advanced()
        now = time.monotonic()
        if now - self._spoke < LINE_EVERY:
            return
        self._spoke = now
        left = (now - self._start) / (self._done - self._before) * (self._total - self._done)
        self._run.say(f"{self._description}  {self._done}/{self._total}  about {left:.0f} s left")


def save_config(folder: Path, config: Config) -> None:
    """Writes the resolved configuration as `config.yaml`, atomically."""
    with atomic_path(folder / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
