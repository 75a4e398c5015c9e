"""Leaving a process without taking it to pieces first."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """Where the block raises SystemExit, the process ends as soon as every function that `atexit` holds has run.

    Python would then destroy the objects of all its modules one by one, for which a user waits after torch, Ray and
    transformers. Must be entered before any of them is imported: `atexit` runs what came first last.
    """
    codes: list[int] = []

    def leave() -> None:
        if not codes:
            return
        logging.shutdown()
        with contextlib.suppress(OSError, ValueError):  # a closed pipe: Python's own end reports it
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(codes[0])

    atexit.register(leave)
    try:
        yield
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            codes.append(ended.code or 0)
        raise
