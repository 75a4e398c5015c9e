"""`r4t serve` as a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support import R4T, ROOT, environment


@contextmanager
def served(
    *args: str | int | Path,
    timeout: float = 300,
    env: dict[str, str] | None = None,
    program: Sequence[str] = (R4T,),
    stderr: int | None = None,
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`r4t serve ARGS` until the block ends: its address and its process. env: variables that it alone has;
    program: what runs in place of the installed `r4t`."""
    command = [*program, "serve", *map(str, args)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=ROOT, env=environment(env)
    )
    try:
        assert process.stdout is not None
        while (line := process.stdout.readline()) and not (found := re.search(r"http://\S+:\d+", line)):
            continue
        assert line, "it ended without an address"
        yield found[0], process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout)
