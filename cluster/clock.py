"""Notices a wall clock that went back: until it has caught up, Ray's timers stand still.

Where it needs one of them, it then neither tells that a process died nor starts another, and whoever waits for either
waits for as long as the clock went back.
"""

from __future__ import annotations

import time

from r4t.errors import UserError

BACK = 60.0  # seconds that Ray's timers may be late by; what a time server corrects is less


class ClockWentBackError(UserError):
    """The wall clock shows an earlier time than it has shown before."""


class WallClock:
    """Of this process's machine, as often as somebody looks at it."""

    def __init__(self) -> None:
        self._latest = 0.0

    def behind(self) -> float:
        """Seconds by which it is behind the latest time that was seen; 0 for one that only went forward."""
        now = time.time()
        self._latest = max(self._latest, now)
        return self._latest - now


CLOCK = WallClock()


def check_clock() -> None:
    """Called where a wait has run into its limit. Raises ClockWentBackError where the clock explains it."""
    if (behind := CLOCK.behind()) > BACK:
        raise ClockWentBackError(
            f"the wall clock went back, by {behind:.0f} s and more, and until it has caught up Ray may neither report a"
            " dead process nor start another: run the same command again, it goes on from what is written (on a"
            " cluster that stays up, start that again before)"
        )
