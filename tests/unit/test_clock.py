"""A wall clock that went back ends a wait that it makes endless, and no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

import cluster.data_job
from cluster.clock import ClockWentBackError, WallClock, check_clock
from cluster.data_job import READERS, timely


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the wall clock to so many seconds from the start of the test."""
    monkeypatch.setattr("cluster.clock.CLOCK", clock := WallClock())
    monkeypatch.setattr("cluster.data_job.CLOCK", clock)
    monkeypatch.setattr(cluster.data_job, "LOOK", 0.02)

    def put(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: 1e9 + seconds)

    put(0)
    return put


def test_a_clock_is_behind_until_it_shows_the_latest_time_again(wall: Callable[[float], None]) -> None:
    clock = WallClock()
    for now, behind in ((0, 0), (5, 0), (3605, 0), (5, 3600), (1805, 1800), (3605, 0), (3700, 0)):
        wall(now)
        assert clock.behind() == behind


def test_a_step_that_a_time_server_makes_is_no_reason(wall: Callable[[float], None]) -> None:
    check_clock()
    wall(-60)
    check_clock()
    wall(-61)
    with pytest.raises(ClockWentBackError, match=r"by 61 s and more.*run the same command again"):
        check_clock()


def test_rows_come_as_they_are_and_so_does_what_fetching_them_raises() -> None:
    def rows() -> Iterator[int]:
        yield from range(5)
        raise OSError("the disk is full")

    assert list(timely(range(5), 1.0)) == [0, 1, 2, 3, 4]
    assert list(timely([], 1.0)) == []
    found = timely(rows(), 1.0)
    assert [next(found) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="the disk is full"):
        next(found)


def test_rows_that_stop_coming_are_waited_for_unless_the_clock_went_back(wall: Callable[[float], None]) -> None:
    go_on = threading.Event()

    def rows() -> Iterator[int]:
        yield 0
        go_on.wait(60)
        yield 1

    found = timely(rows(), 0.2)
    assert next(found) == 0
    threading.Timer(0.6, go_on.set).start()
    assert next(found) == 1, "slow rows are no fault"

    go_on.clear()
    found = timely(rows(), 0.2)
    assert next(found) == 0
    wall(-3600)
    with pytest.raises(ClockWentBackError):
        next(found)
    go_on.set()


def test_rows_that_are_left_early_leave_no_thread() -> None:
    found = timely(iter(range(100)), 1.0)
    assert next(found) == 0
    found.close()  # type: ignore[attr-defined]
    readers = [thread for thread in threading.enumerate() if thread.name == READERS[-1]]
    for thread in readers:
        thread.join(20)
    assert not any(thread.is_alive() for thread in readers)
