"""A wall clock of a run's own, which can be made to jump. The machine's stays as it is."""

from __future__ import annotations

import mmap
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """Compiled into `folder`. Processes that are started with `environment` see it."""

    def __init__(self, folder: Path) -> None:
        self._library, self._file = folder / "clock.so", folder / "clock"
        command = ["cc", "-shared", "-fPIC", "-O2", "-o", str(self._library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        self._file.write_bytes(struct.pack("l", 0))

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK": str(self._file)}

    def jump(self, seconds: int) -> None:
        """At once, and for every process that has it."""
        with self._file.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            (ahead,) = struct.unpack("l", mapped)
            mapped[:] = struct.pack("l", ahead + seconds)
