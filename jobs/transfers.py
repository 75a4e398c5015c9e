"""How far a transfer between a run directory and a store is."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from jobs.run import LINE_EVERY


class Transfer(Protocol):
    """Is told how much there is to move, and of every part that was moved, by any thread."""

    def begin(self, total: int) -> None: ...

    def moved(self, part: int) -> None: ...


@contextmanager
def transfer(description: str) -> Iterator[Transfer]:
    """A bar with the time left on a terminal; elsewhere a line about every ten seconds."""
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield Lines(description, console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield TransferBar(progress, description)


class TransferBar:
    def __init__(self, progress: Progress, description: str) -> None:
        self._progress, self._task = progress, progress.add_task(description, total=None)

    def begin(self, total: int) -> None:
        self._progress.update(self._task, total=total)

    def moved(self, part: int) -> None:
        self._progress.advance(self._task, part)


class Lines:
    def __init__(self, description: str, console: Console) -> None:
        self._description, self._console, self._lock = description, console, threading.Lock()
        self._total = self._done = 0
        self._start = self._spoke = time.monotonic()

    def begin(self, total: int) -> None:
        self._total = total

    def moved(self, part: int) -> None:
        with self._lock:
            self._done += part
            now = time.monotonic()
            if now - self._spoke < LINE_EVERY:
                return
            self._spoke = now
            left = (now - self._start) / max(1, self._done) * (self._total - self._done)
            done = f"{self._done / 2**20:,.0f}/{self._total / 2**20:,.0f} MiB"
            self._console.print(f"{self._description}  {done}  about {left:.0f} s left", markup=False)
