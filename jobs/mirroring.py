"""`cluster.mirror`: a run is fetched from its store when it starts, and sent there while it works and when it ends."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from jobs.transfers import transfer
from r4t.errors import UserError, printable
from r4t.storage.failures import StoreError
from r4t.storage.pull import pull
from r4t.storage.push import Claim, push, read_index
from r4t.storage.snapshot import Hashes
from r4t.storage.store import Store
from r4t.storage.urls import below

PAUSES = (2.0, 5.0)  # seconds between tries of the last push, which Kubernetes' grace period must hold


class Mirror:
    """A sink that sends nothing itself: it tells a thread that a stage has finished.

    What a store refuses while the run works is said and tried again. Once another process owns the mirror, the run
    stops at its next step.
    """

    def __init__(self, run: Path, url: str, every: float) -> None:
        self.run, self.store = run, Store(below(url, run.resolve().name))
        self.say: Callable[[str], None] = print
        self._every, self._claim, self._hashes = every, Claim(), Hashes()
        self._due, self._ended = threading.Event(), threading.Event()
        self._lost: UserError | None = None
        self._failing = False
        self._thread = threading.Thread(target=self._repeat, name="r4t-mirror", daemon=True)

    def config_text(self) -> str | None:
        """The configuration of the run that is stored there, where one of its stages has finished."""
        index = read_index(self.store)
        if index is None or not any(name.endswith("/manifest.json") for name in index.files):
            return None
        entry = index.files.get("config.yaml")
        content = None if entry is None else self.store.read(entry.key, 1 << 20)
        return None if content is None else content.decode(errors="replace")

    def fetch(self) -> None:
        """Makes the run directory what the store holds, where it is empty or behind."""
        with transfer(f"from {self.store.url}") as bar:
            index = pull(self.run, self.store, begin=bar.begin, moved=bar.moved)
        if index is not None:
            self.say(f"mirror: {len(index.files)} files came from {self.store.url}")

    def start(self) -> None:
        """Takes the mirror over, and sends what is new from now on. Raises StoreError where that is not possible."""
        self._push()
        self.say(f"mirror: {self.store.url}, after every stage and every {self._every:g} s")
        self._thread.start()

    def began(self, stage: str) -> None:  # noqa: ARG002  of every sink
        self._check()

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:  # noqa: ARG002  of every sink
        self._check()

    def advanced(self) -> None:
        self._check()

    def finished(self, stage: str, folder: Path) -> None:  # noqa: ARG002  of every sink
        """Has the stage sent at once."""
        self._due.set()

    def close(self) -> None:
        """The run's log is closed after this."""
        self._stop()
        self.say = print

    def finish(self) -> None:
        """Sends all that is left. Raises UserError where that does not work."""
        self._stop()
        self._check()
        for pause in (*PAUSES, None):
            try:
                self._push()
            except StoreError as error:
                if pause is None or not error.passing:
                    raise UserError(
                        f"{self.run} is whole, but its mirror is not up to date: {error}\nWhen that is mended:"
                        f" r4t push {self.run} {self.store.url}"
                    ) from None
                time.sleep(pause)
            else:
                return

    def leave(self) -> None:
        """As `finish`, for a run that ends by an error or a signal, which stays: what does not work is only said."""
        if self._lost is not None:
            return
        try:
            self.finish()
        except UserError as error:
            print(f"error: {printable(str(error))}", file=sys.stderr)

    def _push(self) -> None:
        push(self.run, self.store, self._claim, self._hashes)

    def _stop(self) -> None:
        self._ended.set()
        self._due.set()
        if self._thread.is_alive():
            self._thread.join()

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _repeat(self) -> None:
        while self._lost is None:
            self._due.wait(self._every)
            self._due.clear()
            if self._ended.is_set():
                return
            try:
                self._try()
            except UserError as error:
                self._lost = error

    def _try(self) -> None:
        try:
            self._push()
        except (StoreError, OSError) as error:
            if not self._failing:
                self.say(f"mirror: {error} The run goes on; it is tried again every {self._every:g} s")
            self._failing = True
        else:
            if self._failing:
                self.say(f"mirror: {self.store.url} has everything again")
            self._failing = False


@contextmanager
def mirroring(mirror: Mirror | None) -> Iterator[None]:
    """Sends a run to its store for the length of the block, and what is left at its end."""
    if mirror is None:
        yield
        return
    mirror.start()
    try:
        yield
    except BaseException:
        mirror.leave()
        raise
    mirror.finish()
