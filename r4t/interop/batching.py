"""Collects concurrent calls for a few milliseconds and works on them together."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

WAIT = 0.005  # seconds without a call after which a batch closes
LONGEST = 10  # times that: a batch closes though calls still come in
MOST = 1024  # entries of one batch


@dataclass(frozen=True, slots=True)
class Load:
    """What went through a batcher."""

    calls: int = 0
    entries: int = 0
    batches: int = 0
    largest: int = 0
    """Entries of the largest batch."""

    def __add__(self, other: Load) -> Load:
        return Load(
            calls=self.calls + other.calls,
            entries=self.entries + other.entries,
            batches=self.batches + other.batches,
            largest=max(self.largest, other.largest),
        )


@dataclass(frozen=True, slots=True)
class _Call(Generic[T, R]):
    entries: Sequence[T]
    done: Future[list[R]]


class Batcher(Generic[T, R]):
    """Calls `work` in a thread of its own, once for all calls that came in meanwhile. Safe from any thread.

    `work` takes entries and returns as many results, in their order. When it fails on several calls together, each is
    worked on by itself, so that one bad call fails alone. Closing finishes what was submitted.
    """

    def __init__(self, work: Callable[[list[T]], list[R]], wait: float = WAIT, most: int = MOST) -> None:
        self.load = Load()
        self._work, self._wait, self._most = work, wait, most
        self._calls: queue.SimpleQueue[_Call[T, R] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="r4t-batcher", daemon=True)
        self._thread.start()

    def submit(self, entries: Sequence[T]) -> Future[list[R]]:
        """The pending results of `entries`. Raises RuntimeError once closed."""
        call: _Call[T, R] = _Call(entries, Future())
        with self._lock:
            if self._closed:
                raise RuntimeError("the batcher is closed: nothing more is scored")
            self._calls.put(call)
        return call.done

    def close(self) -> None:
        """Finishes the calls submitted so far, then ends the thread."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._calls.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._calls.get()) is not None:
            gathered, last = self._gather(first)
            # A caller that has given up must not be answered, and can no longer give up once its call is running.
            batch = [call for call in gathered if call.done.set_running_or_notify_cancel()]
            if batch:
                self._count(batch)
                self._serve(batch)
            if last:
                return

    def _gather(self, first: _Call[T, R]) -> tuple[list[_Call[T, R]], bool]:
        """The calls of one batch, and whether the batcher was closed behind them."""
        batch, size = [first], len(first.entries)
        closes = time.monotonic() + LONGEST * self._wait
        while size < self._most:
            try:
                call = self._calls.get(timeout=max(0.0, min(self._wait, closes - time.monotonic())))
            except queue.Empty:
                break
            if call is None:
                return batch, True
            batch.append(call)
            size += len(call.entries)
        return batch, False

    def _count(self, batch: list[_Call[T, R]]) -> None:
        load, entries = self.load, sum(len(call.entries) for call in batch)
        self.load = Load(
            calls=load.calls + len(batch),
            entries=load.entries + entries,
            batches=load.batches + 1,
            largest=max(load.largest, entries),
        )

    def _serve(self, batch: list[_Call[T, R]]) -> None:
        entries = [entry for call in batch for entry in call.entries]
        try:
            results = self._work(entries)
            if len(results) != len(entries):
                raise RuntimeError(f"{len(results)} results came back for {len(entries)} entries")
        except Exception as error:
            if len(batch) == 1:
                batch[0].done.set_exception(error)
                return
            for call in batch:
                self._serve([call])
            return
        start = 0
        for call in batch:
            call.done.set_result(results[start : start + len(call.entries)])
            start += len(call.entries)
