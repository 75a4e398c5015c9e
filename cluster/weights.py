"""Learner -> rollout weight transfer: one protocol, and three ways for the bytes to travel.

| transport | the bytes travel | where |
|---|---|---|
| file | one safetensors file per version, in shared memory on one machine, else on the run's shared storage | CPU |
| nccl | packed broadcast from learner rank 0 to every rollout worker | GPUs of their own |
| ipc | handles of the learner's GPU memory, opened by the rollout worker on the same GPU | `rollout.colocate` |
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import ray

from cluster.clock import check_clock
from cluster.devices import weight_transport
from cluster.launch import LOST, gather
from cluster.scratch import Scratch
from r4t.config import Config
from r4t.lineage import SCRATCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """What one transfer cost."""

    version: int
    seconds: float
    bytes: int


class Transport(Protocol):
    """Moves the learners' present weights into rollout workers, behind the calls that these already have."""

    current: Path | None
    """The file that holds the version sent last. None where no file is written."""

    def send(self, version: int, rollouts: Sequence[Any]) -> int:
        """Sends to all of `rollouts`, which then answer with `version`. Returns the bytes."""

    def load(self, version: int, rollouts: Sequence[Any], worker: Any) -> Any:
        """Brings `worker`, which is new among `rollouts`, to `version`, sent before. Returns the pending call."""

    def wait(self) -> None:
        """Until no worker loads any more. Raises what a load raised."""

    def close(self) -> None: ...


class WeightChannel:
    """Publishes version v of the learner group's weights to every rollout worker. Use as a context manager.

    `rollouts` is read at every call: put a restarted worker in its place in that list, then `load` it.
    """

    def __init__(self, config: Config, learners: Sequence[Any], rollouts: Sequence[Any], shared: Path) -> None:
        kind = weight_transport(config)
        self.transport: Transport = (
            FileTransport(config, learners, shared) if kind == "file" else DeviceTransport(config, learners, kind)
        )
        self.rollouts = rollouts
        self.version = -1

    def __enter__(self) -> WeightChannel:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.transport.close()

    @property
    def current(self) -> Path | None:
        """The file of the version published last, alive until the next publish. None with a GPU transport."""
        return self.transport.current

    def publish(self, version: int) -> Sync:
        """Sends the learners' weights to every rollout worker, as `version`.

        With files it does not wait for the loads: a worker runs its calls in order, so whatever it is asked next it
        answers with these weights.
        """
        started = time.perf_counter()
        self.version = version
        size = self.transport.send(version, self.rollouts)
        return Sync(version=version, seconds=time.perf_counter() - started, bytes=size)

    def load(self, worker: Any) -> Any:
        """Has a restarted rollout worker load the current version; returns the pending call."""
        return self.transport.load(self.version, self.rollouts, worker)

    def wait(self) -> None:
        """Until every rollout worker holds the current version."""
        self.transport.wait()


class FileTransport:
    """A new file per version, because engines may cache by path. It lives until the next is out and all have read."""

    def __init__(self, config: Config, learners: Sequence[Any], shared: Path) -> None:
        self.config, self.learners = config, learners
        self.current: Path | None = None
        self._loads: deque[tuple[Path, list[tuple[int, Any]]]] = deque()  # calls with the numbers of their workers
        memory = Path("/dev/shm")  # noqa: S108  one machine's shared memory, in a private directory
        single = len([node for node in ray.nodes() if node["Alive"]]) == 1 and memory.is_dir()
        self.scratch = Scratch(memory if single else shared, prefix=SCRATCH)

    def send(self, version: int, rollouts: Sequence[Any]) -> int:
        path = self.scratch.path / f"v{version:06d}-{time.time_ns()}.safetensors"
        gather([learner.export.remote(path) for learner in self.learners], self.config, "learner ranks")
        self.current = path
        self._loads.append(
            (path, [(i, worker.load_weights.remote(path, version)) for i, worker in enumerate(rollouts)])
        )
        while len(self._loads) > 1 and not self._late(self._loads[0][1], timeout=0):
            self._loads.popleft()[0].unlink()
        return path.stat().st_size

    def load(self, version: int, rollouts: Sequence[Any], worker: Any) -> Any:
        call = worker.load_weights.remote(self.current, version)
        self._loads[-1][1].append((list(rollouts).index(worker), call))
        return call

    def wait(self) -> None:
        limit = self.config.cluster.call_timeout
        if late := sorted({index for _, loads in self._loads for index in self._late(loads, timeout=limit)}):
            check_clock()
            raise TimeoutError(
                f"rollout workers {late} did not load their weights within {limit:g} s (cluster.call_timeout)"
            )

    def close(self) -> None:
        self.scratch.close()

    def _late(self, loads: list[tuple[int, Any]], timeout: float) -> list[int]:
        """Workers that still need the file. Raises what a load raised."""
        ready, waiting = ray.wait([call for _, call in loads], num_returns=len(loads), timeout=timeout)
        for load in ready:
            try:
                ray.get(load)
            except LOST:
                continue  # a dead worker reads no file; whoever waits for its answers replaces it
        return [index for index, call in loads if call in waiting]


class DeviceTransport:
    """GPU to GPU, by vLLM's own transfer engines. The learners drive: `cluster/weights_device.py`.

    Every rank takes part in each call, since ZeRO-3 gathers the weights while they are sent. Waits for the workers:
    both sides run the same broadcast.
    """

    def __init__(self, config: Config, learners: Sequence[Any], kind: str) -> None:
        self.config, self.learners, self.kind = config, learners, kind
        self.current: Path | None = None
        self._met = False

    def send(self, version: int, rollouts: Sequence[Any]) -> int:
        if not self._met:
            calls = [learner.open_transfer.remote(self.kind, list(rollouts)) for learner in self.learners]
            gather(calls, self.config, "learner ranks, meeting the rollout workers,")
            self._met = True
        calls = [learner.send_weights.remote(version) for learner in self.learners]
        return gather(calls, self.config, "learner ranks, sending weights,")[0]

    def load(self, version: int, rollouts: Sequence[Any], worker: Any) -> Any:  # noqa: ARG002
        self._met = False  # a communicator has fixed members: all meet again
        return ray.put(self.send(version, rollouts))

    def wait(self) -> None:
        pass

    def close(self) -> None:
        pass  # the communicators end with their actors
