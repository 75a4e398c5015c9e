"""One stage of a run as a process tree of its own, that is broken from outside and started again where it ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.chaos import compare
from jobs.run import save_config
from r4t.config import load_config
from r4t.lineage import is_finished
from r4t.tracking import read_metrics

R4T = str(Path(sys.executable).with_name("r4t"))
BEFORE = {
    "folm": ("prepare", "folm/initial", "folm/warm_start"),
    "sets": ("prepare", "folm"),
    "retriever": ("prepare", "folm", "sets"),
    "distill": ("prepare", "folm", "sets", "retriever"),
    "evaluate": ("prepare", "folm", "sets", "retriever", "distill"),
    "serve": ("prepare", "folm", "sets", "retriever", "distill"),
}
"""What a stage begins with."""
ROLES = {
    "folm": {"rollout": "ray::RolloutWorker", "scorer": "ray::RewardScorer", "learner": "ray::PolicyLearner"},
    "sets": {"rollout": "ShardSampler", "scorer": "ShardScorer"},
    "retriever": {"learner": "ray::RetrieverLearner"},
    "distill": {"learner": "ray::StudentLearner"},
    "evaluate": {"rollout": "ray::RolloutWorker"},
    "serve": {"replica": "ray::ServeReplica", "proxy": "ray::ProxyActor", "controller": "ray::ServeController"},
}
"""What the titles of a stage's actors hold."""
SYSTEM = {"raylet": "/raylet", "gcs": "/gcs_server"}
PATIENCE = 300.0  # seconds without progress after which a run hangs
ENDING = 180.0  # seconds for what a killed driver leaves
MARK = "CHAOS_RUN"  # a variable of everything that an attempt starts
AGENTS = ("dashboard/agent.py", "runtime_env/agent/main.py", "ray::DashboardAgent", "ray::RuntimeEnvAgent")


class HungError(RuntimeError):
    """Nothing happened for too long."""


class Attempt:
    """`r4t run --stage` in `folder`, with the earlier stages of `base`. Its output goes to `log`."""

    def __init__(
        self, base: Path, folder: Path, stage: str, overrides: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.base, self.folder, self.stage, self.log = base, folder, stage, log
        self.starts = 0
        self._environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | dict(environment)
        self._environment[MARK] = str(folder)
        for part in BEFORE[stage]:
            shutil.copytree(base / part, folder / part)
        save_config(folder, load_config(base / "config.yaml", list(overrides)))
        self.start()

    @property
    def command(self) -> list[str]:
        """What the driver is."""
        return [R4T, "run", str(self.folder / "config.yaml"), "--run-dir", str(self.folder), "--stage", self.stage]

    def start(self) -> None:
        """Starts the driver, from where the stage stands."""
        with self.log.open("ab") as output:
            self._heard = output.tell()
            self.driver = subprocess.Popen(
                self.command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=self._environment,
                start_new_session=True,
            )  # fmt: skip
        self.starts += 1

    def said(self) -> str:
        """Output since the last start."""
        return self.log.read_bytes()[self._heard :].decode(errors="replace")

    @property
    def ended(self) -> bool:
        return self.driver.poll() is not None

    @property
    def finished(self) -> bool:
        return is_finished(self.folder / self.stage)

    @property
    def over(self) -> bool:
        """The stage is finished, and its driver gone."""
        return self.ended and self.finished

    def progress(self) -> tuple[int, ...]:
        """Lines of numbers, shards, and whether the stage is finished: more of them is progress."""
        lines = len(read_metrics(self.folder / "metrics.jsonl"))
        return lines, len(list((self.folder / "sets").glob("shard-*.parquet"))), self.finished

    def went_on(self, stood: tuple[int, ...]) -> bool:
        """Whether a fault is over that struck when `progress` was `stood`: a driver goes on for a while without its
        node, and is given up by Ray later."""
        return self.progress() != stood and (self.over or self.has_node)

    @property
    def has_node(self) -> bool:
        """Every process of the driver's own Ray node lives."""
        return all(self.processes(role) for role in SYSTEM)

    def finish(self) -> list[str]:
        """Waits for the end. What is then not as in `base`."""
        self.wait("the end", lambda: self.over)
        self.check_nothing_runs()
        return compare.problems(self.base, self.folder, self.stage)

    def processes(self, role: str) -> list[psutil.Process]:
        """Those of a role that live, oldest first."""
        if self.ended:
            return []
        if role == "driver":
            return [psutil.Process(self.driver.pid)]
        wanted = (ROLES[self.stage] | SYSTEM)[role]
        found = []
        for process in _children(self.driver.pid):
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()  # none of a process that has just begun or ended
                title = " ".join(words[:1] if role in SYSTEM else words)
                if wanted in title and process.status() != psutil.STATUS_ZOMBIE:
                    found.append((process.create_time(), process.pid, process))
        return [process for *_, process in sorted(found, key=lambda one: one[:2])]

    def kill(self) -> None:
        """Kills the driver, and waits for what it started to end. Raises HungError when something lives on."""
        children = [] if self.ended else _children(self.driver.pid)
        self.driver.kill()
        self.driver.wait()
        self.await_end(children)

    def await_end(self, children: Sequence[psutil.Process]) -> None:
        """Raises HungError with the processes that have not ended in `ENDING` seconds; Ray's agents may take longer."""
        deadline = time.monotonic() + ENDING
        while left := [one for one in children if _lives(one)]:
            if time.monotonic() > deadline:
                raise HungError(f"left running: {[_title(one) for one in left]}")
            time.sleep(0.2)

    def wait(self, what: str, condition: Callable[[], bool], restart: bool = True) -> None:
        """Until `condition`; a driver that ended is started again. Raises HungError after `PATIENCE` of nothing."""
        seen, since = self.progress(), time.monotonic()
        while not condition():
            if restart and self.ended and not self.finished:
                self.start()
            if (now := self.progress()) != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > PATIENCE:
                raise HungError(f"waited {PATIENCE:g} s for {what}")
            time.sleep(0.05)

    def check_nothing_runs(self) -> None:
        """Raises HungError where something outlived its driver."""
        self.await_end(self.left())

    def left(self) -> list[psutil.Process]:
        """Everything that any of its drivers started and that lives."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def close(self) -> None:
        """Ends everything that is left of it, whatever state it is in."""
        for process in self.left():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.driver.wait()


def _children(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE and not any(name in _title(process) for name in AGENTS)
    return False


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())[:120]
    return "ended"
