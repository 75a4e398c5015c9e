"""Scratch folders that do not outlive their process for long, even one that was killed."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

LOCK = ".lock"


class Scratch:
    """A private folder under `root`. Making one removes those of the same `prefix` whose process has died.

    The owner holds a lock on a file inside, which the system drops when the process ends, however it ends.
    """

    def __init__(self, root: Path, prefix: str) -> None:
        for left in root.glob(f"{prefix}*"):
            _remove_if_abandoned(left)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
            self._lock = (self.path / LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if (self.path / LOCK).exists():
                break
            self._lock.close()  # another process took the folder for abandoned before it was locked

    def close(self) -> None:
        """Removes the folder with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _remove_if_abandoned(folder: Path) -> None:
    with suppress(OSError), (folder / LOCK).open("r") as lock:  # another user's, or being made: not ours to judge
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
