"""Peak memory of a process and all its descendants."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

import psutil


class PeakMemory:
    """Samples every so many seconds while the block runs; `bytes` is the highest sum of proportional set sizes seen.

    Proportional sizes share a page out among the processes that map it, so the sum counts shared memory once.
    """

    def __init__(self, every: float = 2.0) -> None:
        self.bytes = 0
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
            self.bytes = max(self.bytes, tree_memory())
            if self._stop.wait(self._every):
                return


def tree_memory() -> int:
    """Bytes that this process and its descendants hold now."""
    own = psutil.Process()
    return sum(_proportional(process.pid) for process in [own, *own.children(recursive=True)])


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0  # ended between the listing and the reading, or belongs to another user
    kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return kilobytes * 1024
