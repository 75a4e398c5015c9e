"""SIGTERM ends any command with code 143. Nothing but the standard library: every command imports it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopping_cleanly() -> Iterator[None]:
    """Turns SIGTERM into SystemExit with 143, so that actors and files are closed and the run can be resumed."""

    def stop(number: int, _: FrameType | None) -> None:
        print("stopped by SIGTERM; the same command resumes the run", file=sys.stderr)
        raise SystemExit(128 + number)

    def swallowed(what: sys.UnraisableHookArgs) -> None:
        """Python drops what is raised in a finaliser, which is where a signal may find the process: once more."""
        if what.exc_type is SystemExit:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        else:
            hook(what)

    before, hook = signal.signal(signal.SIGTERM, stop), sys.unraisablehook
    sys.unraisablehook = swallowed
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        sys.unraisablehook = hook
