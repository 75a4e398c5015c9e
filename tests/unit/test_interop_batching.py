"""Concurrent calls are worked on together, and each gets its own results."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.interop.batching import Batcher


def squares(entries: list[int]) -> list[int]:
    if -1 in entries:
        raise ValueError("minus one")
    return [entry**2 for entry in entries]


@settings(max_examples=30)
@given(calls=st.lists(st.lists(st.integers(0, 99), max_size=5), max_size=40), most=st.integers(1, 20))
def test_every_call_gets_its_own_results_in_order(calls: list[list[int]], most: int) -> None:
    batcher = Batcher(squares, wait=0.001, most=most)
    pending = [batcher.submit(call) for call in calls]
    assert [one.result(10) for one in pending] == [squares(call) for call in calls]
    batcher.close()
    assert batcher.load.calls == len(calls)
    assert batcher.load.entries == sum(map(len, calls))


def test_calls_of_one_moment_are_one_batch() -> None:
    sizes: list[int] = []
    start = threading.Barrier(32)

    def work(entries: list[int]) -> list[int]:
        sizes.append(len(entries))
        return entries

    batcher = Batcher(work, wait=2.0, most=32)

    def call(i: int) -> list[int]:
        start.wait()
        return batcher.submit([i]).result(20)

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(call, range(32))) == [[i] for i in range(32)]
    assert sizes == [32]
    assert batcher.load.largest == 32


def test_a_call_alone_does_not_wait_for_others() -> None:
    batcher = Batcher(squares, wait=0.01)
    started = time.monotonic()
    assert batcher.submit([3]).result(10) == [9]
    assert time.monotonic() - started < 5


def test_a_batch_stays_open_while_calls_come_but_not_for_ever() -> None:
    batcher = Batcher(squares, wait=0.2)
    stop = time.monotonic() + 1.0
    first, last, gap = batcher.submit([0]), time.monotonic(), 0.0
    while time.monotonic() < stop:
        time.sleep(0.01)
        batcher.submit([1])
        gap, last = max(gap, time.monotonic() - last), time.monotonic()
    assert gap > 0.1 or not first.done(), "calls have come in all the time"
    stop += 5.0
    while not first.done() and time.monotonic() < stop:
        batcher.submit([1])
        time.sleep(0.01)
    assert first.result(0) == [0]


def test_one_bad_call_fails_alone() -> None:
    batcher = Batcher(squares, wait=0.5, most=3)
    good, bad, other = (batcher.submit([entry]) for entry in (2, -1, 3))
    assert (good.result(10), other.result(10)) == ([4], [9])
    with pytest.raises(ValueError, match="minus one"):
        bad.result(10)


def test_a_caller_that_gave_up_harms_nobody() -> None:
    batcher = Batcher(squares, wait=0.2)
    gone, good = batcher.submit([2]), batcher.submit([3])
    assert gone.cancel()
    assert good.result(10) == [9]
    alone = batcher.submit([4])
    alone.cancel()
    assert batcher.submit([5]).result(10) == [25]
    assert batcher.load.entries <= 3


def test_too_few_results_are_an_error() -> None:
    batcher: Batcher[int, int] = Batcher(lambda entries: entries[1:])
    with pytest.raises(RuntimeError, match="0 results came back for 1 entries"):
        batcher.submit([1]).result(10)


def test_closing_finishes_what_was_submitted_and_refuses_more() -> None:
    batcher = Batcher(squares, wait=0.05)
    pending = [batcher.submit([i]) for i in range(5)]
    batcher.close()
    assert [one.result(0) for one in pending] == [[i**2] for i in range(5)]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit([1])
    batcher.close()
