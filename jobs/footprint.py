"""Peak memory of a process and all its descendants."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import TracebackType

import psutil

GONE = (FileNotFoundError, ProcessLookupError, PermissionError)  # ended since it was listed, or of another user
GROWTH = 1.01  # of the estimate, before proportional sizes are read again: reading them costs milliseconds a process
PAGE = os.sysconf("SC_PAGESIZE")
SETTLES = 0.02  # seconds: a process that is starting another counts double until the new one runs its own program


class PeakMemory:
    """Looks every so many seconds while the block runs; `bytes` is the highest sum of proportional set sizes seen.

    Proportional sizes share a page out among the processes that map it, so the sum counts shared memory once. They are
    read whenever a cheap estimate of that sum has grown.
    """

    def __init__(self, every: float = 2.0) -> None:
        self.bytes = 0
        self._estimate = 0
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            if self._grown():
                self.bytes = max(self.bytes, sum(map(_proportional, _tree())))
            if self._stop.wait(self._every):
                return

    def _grown(self) -> bool:
        """Whether the estimate has grown since it last had, and not for a moment only."""
        least = GROWTH * self._estimate
        if (estimate := _estimate(_tree())) <= least:
            return False
        time.sleep(SETTLES)
        if (estimate := min(estimate, _estimate(_tree()))) <= least:
            return False
        self._estimate = estimate
        return True


def _tree() -> list[int]:
    """This process and its descendants."""
    own = psutil.Process()
    return [process.pid for process in (own, *own.children(recursive=True))]


def _estimate(pids: list[int]) -> int:
    """Bytes: what each process has for itself, and the most that one shares."""
    own, most = 0, 0
    for pid in pids:
        try:
            resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
        except GONE:
            continue
        own, most = own + resident - shared, max(most, shared)
    return PAGE * (own + most)


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except GONE:
        return 0
    kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return kilobytes * 1024
