"""A full disk is one clear error, and half of a line is never left on it."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from r4t.errors import UserError


def full_disk_error(path: Path) -> UserError:
    """What to say where `path` could not be written for lack of space."""
    return UserError(
        f"the disk is full: {path} was not written by host {platform.node()} (nothing half-written is left). Free space"
        " there and run again"
    )


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turns the system's error that no space, or none of the quota, is left for `path` into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full_disk_error(path) from error
        raise
    except SafetensorError as error:  # it has the system's error as text alone
        if any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT)):
            raise full_disk_error(path) from error
        raise


class LineFile:
    """A text file that grows by whole lines, each on disk at once: it can be watched, and survives a kill.

    Half a line that a killed process left is taken away first; the next one would be glued to it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        _drop_torn_line(path)
        with full_disk_named(path):
            self._handle = path.open("ab", buffering=0)

    def append(self, text: str) -> None:
        """Writes `text` and a newline, all or nothing. Raises UserError where the disk is full."""
        whole = os.fstat(self._handle.fileno()).st_size
        left = memoryview(f"{text}\n".encode())
        try:
            with full_disk_named(self._path):
                while left:
                    left = left[self._handle.write(left) :]
        except BaseException:
            with contextlib.suppress(OSError):
                self._handle.truncate(whole)
            raise

    def close(self) -> None:
        self._handle.close()


def _drop_torn_line(path: Path) -> None:
    if not path.is_file():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("rb+") as handle:
            handle.truncate(content.rfind(b"\n") + 1)
