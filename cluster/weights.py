"""Learner -> rollout weight transfer: one new file per version, loaded by every engine, kept until the next."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import ray

from cluster.launch import LOST, gather
from r4t.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """What one transfer cost."""

    version: int
    seconds: float
    bytes: int


class WeightChannel:
    """Moves weights of version v from the learner group to every rollout worker.

    On one machine the files live in shared memory; on several, in the run directory, which must be shared storage.
    A path is never reused, because engines may cache by path.
    """

    def __init__(self, config: Config, learners: list[Any], rollouts: list[Any], shared: Path) -> None:
        self.config, self.learners, self.rollouts = config, learners, rollouts
        memory = Path("/dev/shm")  # noqa: S108  one machine's shared memory, in a private directory
        single = len([node for node in ray.nodes() if node["Alive"]]) == 1 and memory.is_dir()
        self._loads: deque[tuple[Path, list[Any]]] = deque()
        self.folder = Path(tempfile.mkdtemp(prefix="r4t-weights-", dir=memory if single else shared))

    def __enter__(self) -> WeightChannel:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def publish(self, version: int) -> Sync:
        """Exports the learners' weights as `version`; every rollout worker loads them after the calls it already has.

        Does not wait for the loads: a worker runs its calls in order, so whatever it is asked next it answers with
        these weights. The file lives until the next version is out and all have loaded it or gone.
        """
        started = time.perf_counter()
        path = self.folder / f"v{version:06d}.safetensors"
        gather([learner.export.remote(path) for learner in self.learners], self.config, "learner ranks")
        self.version, self.path = version, path
        self._loads.append((path, [self.load(rollout) for rollout in self.rollouts]))
        while len(self._loads) > 1 and self._settled(self._loads[0][1]):
            self._loads.popleft()[0].unlink()
        return Sync(version=version, seconds=time.perf_counter() - started, bytes=path.stat().st_size)

    def load(self, rollout: Any) -> Any:
        """Has one rollout worker load the current version; returns the pending call."""
        return rollout.load_weights.remote(self.path, self.version)

    def _settled(self, loads: list[Any]) -> bool:
        """Whether no worker needs the file any more. Raises what a load raised."""
        ready, waiting = ray.wait(loads, num_returns=len(loads), timeout=0)
        for load in ready:
            try:
                ray.get(load)
            except LOST:
                continue  # a dead worker reads no file; whoever waits for its answers replaces it
        return not waiting
