"""SIGTERM while a loop trains: finish the step, write a checkpoint, leave with code 143."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil

from cluster.pre_stop import MARK


class Stop:
    """Whether a stop was asked for."""

    requested = False

    @property
    def exit(self) -> SystemExit:
        return SystemExit(128 + signal.SIGTERM)


@contextmanager
def stop_at_boundary() -> Iterator[Stop]:
    """Within the block the first SIGTERM only sets `requested`; a second one leaves at once, with code 143 too.

    Where the block ends before it looked at `requested`, SystemExit is raised after it.
    """
    stop = Stop()
    before, name = signal.getsignal(signal.SIGTERM), psutil.Process().name()

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  a handler's signature
        if stop.requested:
            raise stop.exit
        stop.requested = True
        _rename(MARK)
        print("SIGTERM: writing a checkpoint after this step; once more stops at once", file=sys.stderr)

    signal.signal(signal.SIGTERM, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
        if stop.requested:
            _rename(name)
    if stop.requested:
        raise stop.exit


def _rename(name: str) -> None:
    with suppress(OSError):  # where there is no /proc, nobody looks
        Path("/proc/self/comm").write_text(name)
