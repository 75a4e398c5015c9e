"""Learner -> rollout weight transfer: one new file per version, loaded by every engine, then forgotten."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import ray

from cluster.launch import gather
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
        self.folder = Path(tempfile.mkdtemp(prefix="r4t-weights-", dir=memory if single else shared))

    def __enter__(self) -> WeightChannel:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def publish(self, version: int) -> Sync:
        """Exports the learners' weights as `version` and loads them into every rollout worker."""
        started = time.perf_counter()
        path = self.folder / f"v{version:06d}.safetensors"
        gather([learner.export.remote(path) for learner in self.learners], self.config, "learner ranks")
        gather(
            [rollout.load_weights.remote(path, version) for rollout in self.rollouts], self.config, "rollout workers"
        )
        size = path.stat().st_size
        path.unlink()
        return Sync(version=version, seconds=time.perf_counter() - started, bytes=size)
