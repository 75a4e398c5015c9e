"""`r4t serve` under clients that never pause, broken from outside as a stage is."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.chaos.attempt import ENDING, R4T, ROLES, Attempt
from cluster.ports import free_port
from jobs.export import export
from r4t.catalog.dataset import load_dataset
from r4t.client import Client, ServerError
from r4t.errors import UserError
from r4t.retriever import R4TRetriever

CLIENTS = 3
QUERIES = 12
DEPTH = 5  # items a query
PAUSE = 0.05  # seconds between an answer and the client's next request
REPLICAS = 2
RETRIES = 20  # of a request: the server may be away for as long as its command takes to be given again
SETTINGS = (f"serve.replicas={REPLICAS}", "serve.replica_cpus=0.3")


class Served(Attempt):
    """The endpoint of `base` on Ray Serve. Its progress is rounds: in one, every client got an answer to a request
    that it began in it. Answers are compared with those of the retriever in this process."""

    def __init__(
        self, base: Path, folder: Path, stage: str, overrides: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self._port = free_port()
        self._over = threading.Event()
        self._expected = _answers(base)
        self._lock = threading.Lock()
        self._rounds, self._missing, self._done = 0, 0, set[int]()
        self._problems: list[str] = []
        self.answers = 0
        super().__init__(base, folder, stage, [*overrides, *SETTINGS], environment, log)
        self._clients = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(CLIENTS)]
        for one in self._clients:
            one.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def command(self) -> list[str]:
        return [R4T, "serve", str(self.folder), "--port", str(self._port)]

    @property
    def finished(self) -> bool:
        return self._over.is_set()

    def progress(self) -> tuple[int, ...]:
        return (self._rounds,)

    def went_on(self, stood: tuple[int, ...]) -> bool:
        """Every process is there again, and a round was begun and ended since."""
        if not self._whole():
            self._missing = self._rounds
            return False
        return self._rounds > max(stood[0], self._missing) + 1

    def finish(self) -> list[str]:
        """Stops the clients, then the server. What of the requests was lost or answered wrongly."""
        self._over.set()
        for one in self._clients:
            one.join(ENDING)
        self.driver.send_signal(signal.SIGTERM)
        self.wait("the server to stop", lambda: self.ended, restart=False)
        if self.driver.returncode:
            self._problems.append(f"SIGTERM ended in exit {self.driver.returncode}")
        self.check_nothing_runs()
        return self._problems

    def close(self) -> None:
        self._over.set()
        super().close()

    def _whole(self) -> bool:
        wanted = dict.fromkeys(ROLES["serve"], 1) | {"replica": REPLICAS}
        counts = {role: sum(_runs(one) for one in self.processes(role)) for role in wanted}
        return self.has_node and all(counts[role] >= count for role, count in wanted.items())

    def _ask(self, number: int) -> None:
        turn = number
        with Client(self.url, retries=RETRIES) as client:
            while not client.ready() and not self._over.wait(PAUSE):
                continue
            while not self._over.is_set():
                query, expected = self._expected[turn % len(self._expected)]
                begun = self._rounds
                problem = ""
                try:
                    found = [item.item_id for item in client.retrieve(query, DEPTH).sets[0].items]
                    if found != expected:
                        problem = f"another answer to {query!r}: {found}"
                except (ServerError, UserError) as error:
                    problem = f"request lost: {error}"
                with self._lock:
                    self._answered(number, begun, problem)
                turn += 1
                self._over.wait(PAUSE)

    def _answered(self, number: int, begun: int, problem: str) -> None:
        if problem:
            self._problems.append(problem)
            return
        self.answers += 1
        if begun == self._rounds:
            self._done.add(number)
        if len(self._done) == CLIENTS:
            self._done.clear()
            self._rounds += 1


def _answers(base: Path) -> list[tuple[str, list[str]]]:
    """Queries, each with the items that belong to it."""
    queries = [query.text for query in load_dataset(base / "prepare").queries[:QUERIES]]
    with tempfile.TemporaryDirectory() as temporary:
        export(base, Path(temporary) / "exported")
        sets = R4TRetriever.from_pretrained(Path(temporary) / "exported").retrieve(queries, DEPTH)
    return [(query, [item.item_id for item in one.items]) for query, one in zip(queries, sets, strict=True)]


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.status() != psutil.STATUS_STOPPED
    return False
