"""Learner -> rollout weight transfer: one protocol, and three ways for the bytes to travel.

| transport | the bytes travel | where |
|---|---|---|
| file | one safetensors file per version, in shared memory on one machine, else on the run's shared storage | CPU |
| nccl | packed broadcast from learner rank 0 to every rollout worker | GPUs of their own |
| ipc | handles of the learner's GPU memory, opened by the rollout worker on the same GPU | `rollout.colocate` |
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import ray

from cluster.devices import weight_transport
from cluster.launch import gather
from r4t.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """What one transfer cost."""

    version: int
    seconds: float
    bytes: int


class Transport(Protocol):
    """Moves the learners' present weights into every rollout worker."""

    current: Path | None
    """The file that holds the version sent last, for a worker that starts later. None where no file is written."""

    def connect(self, rollouts: Sequence[Any]) -> None:
        """Meets the rollout workers: once before the first transfer, and again after one was replaced."""

    def send(self, version: int) -> int:
        """Returns the bytes moved, when every worker answers with `version`."""

    def close(self) -> None: ...


class WeightChannel:
    """Publishes version v of the learner group's weights to every rollout worker. Use as a context manager."""

    def __init__(self, config: Config, learners: Sequence[Any], rollouts: Sequence[Any], shared: Path) -> None:
        kind = weight_transport(config)
        self.transport: Transport = (
            FileTransport(config, learners, shared) if kind == "file" else DeviceTransport(config, learners, kind)
        )
        self.rollouts: Sequence[Any] = rollouts
        self._connected = False

    def __enter__(self) -> WeightChannel:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.transport.close()

    @property
    def current(self) -> Path | None:
        """The file of the version published last, alive until the next publish. None with a GPU transport."""
        return self.transport.current

    def replace(self, rollouts: Sequence[Any]) -> None:
        """Takes these rollout workers from the next publish on; a GPU transport then meets all of them again."""
        self.rollouts, self._connected = rollouts, False

    def publish(self, version: int) -> Sync:
        """Loads the learners' weights into every rollout worker, as `version`."""
        started = time.perf_counter()
        if not self._connected:
            self.transport.connect(self.rollouts)
            self._connected = True
        size = self.transport.send(version)
        return Sync(version=version, seconds=time.perf_counter() - started, bytes=size)


class FileTransport:
    """A new file per version, because engines may cache by path. The last one stays until the next is loaded."""

    def __init__(self, config: Config, learners: Sequence[Any], shared: Path) -> None:
        self.config, self.learners = config, learners
        self.rollouts: Sequence[Any] = ()
        self.current: Path | None = None
        memory = Path("/dev/shm")  # noqa: S108  one machine's shared memory, in a private directory
        single = len([node for node in ray.nodes() if node["Alive"]]) == 1 and memory.is_dir()
        self.folder = Path(tempfile.mkdtemp(prefix="r4t-weights-", dir=memory if single else shared))

    def connect(self, rollouts: Sequence[Any]) -> None:
        self.rollouts = rollouts

    def send(self, version: int) -> int:
        path = self.folder / f"v{version:06d}-{time.time_ns()}.safetensors"
        gather([learner.export.remote(path) for learner in self.learners], self.config, "learner ranks")
        previous, self.current = self.current, path
        gather([worker.load_weights.remote(path, version) for worker in self.rollouts], self.config, "rollout workers")
        if previous is not None:
            previous.unlink()
        return path.stat().st_size

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class DeviceTransport:
    """GPU to GPU, by vLLM's own transfer engines. The learners drive: `cluster/weights_device.py`.

    Every rank takes part in each call, since ZeRO-3 gathers the weights while they are sent.
    """

    def __init__(self, config: Config, learners: Sequence[Any], kind: str) -> None:
        self.config, self.learners, self.kind = config, learners, kind
        self.current: Path | None = None

    def connect(self, rollouts: Sequence[Any]) -> None:
        calls = [learner.open_transfer.remote(self.kind, list(rollouts)) for learner in self.learners]
        gather(calls, self.config, "learner ranks, meeting the rollout workers,")

    def send(self, version: int) -> int:
        calls = [learner.send_weights.remote(version) for learner in self.learners]
        return gather(calls, self.config, "learner ranks, sending weights,")[0]

    def close(self) -> None:
        pass  # the communicators end with their actors
