"""Reads the rows of a Ray Data job, and ends its threads where it is left early."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from ray.data._internal.execution.streaming_executor import StreamingExecutor

from cluster.clock import CLOCK, check_clock

T = TypeVar("T")
LOOK = 5.0  # seconds between two looks at the clock
SCHEDULE_ENDS, PAUSE = 20.0, 0.2  # seconds that Ray Data's threads are given when a job is left early, and of each wait
READERS = ("map_tp_filling_worker", "r4t-rows")  # threads that fetch a job's output: Ray Data's, and that of `timely`


def timely(rows: Iterable[T], limit: float) -> Iterator[T]:
    """The rows, as a thread fetches them, for Ray Data waits for lost actors without a limit.

    Raises what fetching raised, and ClockWentBackError where no row has come for `limit` seconds on a wall clock that
    went back.
    """
    fetched: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=1)
    left = threading.Event()

    def hand(what: str, value: Any) -> None:
        while not left.is_set():
            with suppress(queue.Full):
                fetched.put((what, value), timeout=LOOK)
                return

    def fetch() -> None:
        try:
            for row in rows:
                hand("row", row)
                if left.is_set():
                    return
            hand("end", None)
        except Exception as error:
            hand("error", error)

    threading.Thread(target=fetch, name=READERS[-1], daemon=True).start()
    try:
        while (one := _next(fetched, limit))[0] == "row":
            yield one[1]
    finally:
        left.set()
    if one[0] == "error":
        raise one[1]


def _next(fetched: queue.Queue[tuple[str, Any]], limit: float) -> tuple[str, Any]:
    deadline = time.monotonic() + limit
    while True:
        CLOCK.behind()
        with suppress(queue.Empty):
            return fetched.get(timeout=LOOK)
        if time.monotonic() > deadline:
            check_clock()


@contextmanager
def ending_its_schedule() -> Iterator[None]:
    """Ends the threads of a job that is left early: the one that schedules, then those that read its output.

    Ray Data itself lets them go on, and one that still calls Ray when the session has closed ends the whole process,
    with an exit code of its own.
    """
    before = set(threading.enumerate())
    try:
        yield
    finally:
        for _ in range(round(SCHEDULE_ENDS / PAUSE)):
            alive = [thread for thread in threading.enumerate() if thread not in before and _calls_ray(thread)]
            if not alive:
                break
            for thread in alive:
                if isinstance(thread, StreamingExecutor):
                    thread.shutdown(force=True)
            alive[0].join(PAUSE)  # then looks again: one that ends may have started another


def _calls_ray(thread: threading.Thread) -> bool:
    return isinstance(thread, StreamingExecutor) or thread.name.startswith(READERS)
