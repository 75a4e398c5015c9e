"""The threads of a Ray Data job that is left early end with the block that reads it."""

from __future__ import annotations

import threading
import time

from cluster.data_job import READERS, ending_its_schedule


def reader(seconds: float, then: threading.Thread | None = None, name: str = READERS[-1]) -> threading.Thread:
    """A thread that works for `seconds`, and then starts `then`."""

    def work() -> None:
        time.sleep(seconds)
        if then is not None:
            then.start()

    return threading.Thread(target=work, name=name, daemon=True)


def test_a_reader_that_another_starts_while_the_job_ends_is_waited_for() -> None:
    """The first row's readers start when it comes, which may be after the job was told to end."""
    late = reader(0.5, name=f"{READERS[0]}-1")
    first = reader(0.3, late)
    with ending_its_schedule():
        first.start()
    assert late.ident is not None
    assert not first.is_alive()
    assert not late.is_alive()


def test_threads_that_stood_before_and_those_of_others_are_not_waited_for() -> None:
    before, other = reader(3), reader(3, name="other")
    before.start()
    start = time.monotonic()
    with ending_its_schedule():
        other.start()
    assert time.monotonic() - start < 2
    assert before.is_alive()
    assert other.is_alive()
