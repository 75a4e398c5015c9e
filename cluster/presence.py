"""Finds the actors of a Ray Data job that stand still: it waits for a process that lives, whatever it does.

Each tells a roll now and then that it is there. One that is not heard of for `cluster.call_timeout` is killed where it
runs, and Ray hands its work to another, as it does when a process dies by itself.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from r4t.config import Config

BEAT = 5.0  # seconds between two signs of life, and between two looks at them
KILLING = 60.0  # seconds for a node to end one of its processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """A process of the job."""

    who: str
    node: str
    address: str
    pid: int
    born: float
    """Seconds since the epoch: another process may get its number later."""


class Roll:
    """An actor that knows when each of the others was heard of, by its own clock."""

    def __init__(self) -> None:
        self._heard: dict[Presence, float] = {}

    def here(self, presence: Presence) -> None:
        self._heard[presence] = time.monotonic()

    def silent(self, limit: float) -> list[Presence]:
        """Those not heard of for `limit` seconds, each once."""
        found = [one for one, heard in self._heard.items() if time.monotonic() - heard > limit]
        for one in found:
            del self._heard[one]
        return found


def sign(roll: Any, who: str) -> None:
    """Called in an actor: from now on the roll hears of its process."""
    process = psutil.Process()
    own = Presence(
        who=who,
        node=ray.get_runtime_context().get_node_id(),
        address=ray.util.get_node_ip_address(),
        pid=process.pid,
        born=process.create_time(),
    )

    def tell() -> None:
        while True:
            with contextlib.suppress(RayError):
                roll.here.remote(own)
            time.sleep(BEAT)

    threading.Thread(target=tell, daemon=True).start()


@contextlib.contextmanager
def roll_call(config: Config, say: Callable[[str], None], share: float = 1.0) -> Iterator[Any]:
    """The roll of one job, looked at until the block ends. say: where losses are reported; share: of
    `cluster.call_timeout`, after which a process is ended."""
    roll: Any = ray.remote(Roll).options(num_cpus=0, max_restarts=-1).remote()
    done = threading.Event()

    def look() -> None:
        while not done.wait(BEAT):
            with contextlib.suppress(RayError):
                _end_silent(roll, share, config.cluster.call_timeout, say)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield roll
    finally:
        done.set()
        ray.kill(roll)  # first, so that the watcher does not wait for it
        watcher.join(BEAT)  # it may be waiting for a node that is gone


def _end_silent(roll: Any, share: float, timeout: float, say: Callable[[str], None]) -> None:
    limit, of = share * timeout, "" if share == 1 else f"{share:g} x "
    for one in ray.get(roll.silent.remote(limit), timeout=KILLING):
        there = NodeAffinitySchedulingStrategy(one.node, soft=False)
        if ray.get(_end.options(scheduling_strategy=there).remote(one.pid, one.born), timeout=KILLING):
            say(
                f"{one.who} (process {one.pid} on {one.address}) was not heard of for {limit:g} s"
                f" ({of}cluster.call_timeout): it is ended, and another does its work"
            )


@ray.remote(num_cpus=0)
def _end(pid: int, born: float) -> bool:
    """Whether that process was still there."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.create_time() == born and pid != os.getpid():
            process.kill()
            return True
    return False
