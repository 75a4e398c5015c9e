"""Which pods hold a run: the bundles of `cluster.roles`, packed into nodes of a given size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from r4t.config import Config
from r4t.errors import UserError
from r4t.footprint import Footprint, Kind
from r4t.seats import bundles, gpus, pools, retriever_ranks, seats

MARGIN = 1.25  # of memory requested over memory reckoned
NODE_GIB = 1.0  # raylet and agents
OBJECT_STORE_GIB = 1.0  # batches and small tables pass through it
DRIVERS_ONLY = ("prepare", "report")  # stages that start no actor
RETRIEVER_CPUS = 0.5  # of one rank, as cluster.launch asks


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What one machine gives to its pod."""

    cpus: float
    gpus: int
    memory_gib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one bundle, or all bundles of a pod, ask for."""

    cpus: float = 0.0
    gpus: tuple[float, ...] = ()
    """Of every bundle; a share of one GPU is held on a single device."""
    memory_gib: float = 0.0

    @property
    def devices(self) -> int:
        """GPUs that hold the bundles, the largest share first, each on the first device with room."""
        rooms: list[float] = []
        for share in sorted((amount for amount in self.gpus if 0 < amount < 1), reverse=True):
            place = next((i for i, room in enumerate(rooms) if share <= room + 1e-9), None)
            if place is None:
                rooms.append(1.0 - share)
            else:
                rooms[place] -= share
        return len(rooms) + sum(math.ceil(amount) for amount in self.gpus if amount >= 1)

    def plus(self, other: Load) -> Load:
        return Load(
            cpus=self.cpus + other.cpus,
            gpus=self.gpus + other.gpus,
            memory_gib=self.memory_gib + other.memory_gib,
        )

    def within(self, node: Node) -> bool:
        room = node.memory_gib - NODE_GIB - OBJECT_STORE_GIB
        return self.cpus <= node.cpus + 1e-9 and self.devices <= node.gpus and self.memory_gib <= room + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Equal pods."""

    pool: str | None
    replicas: int
    cpus: int
    gpus: int
    memory_gib: int


def worker_groups(config: Config, node: Node, memory: Mapping[Kind, Footprint], stage: str = "all") -> list[Group]:
    """The worker pods that `stage` needs, one group per pool. None for a stage that only the driver computes.

    Raises UserError for an actor that no node can hold.
    """
    if stage in DRIVERS_ONLY:
        return []
    by_pool: dict[str | None, list[Load]] = {}
    for load, pool in zip(loads(config, memory), pools(seats(config)), strict=True):
        by_pool.setdefault(pool, []).append(load)
    filled = {pool: pack(wanted, node) for pool, wanted in by_pool.items()}
    retriever = retriever_loads(config, memory)
    everywhere = [Load()] * sum(len(pods) for pods in filled.values())
    after = pack(retriever, node, everywhere)
    first = next(iter(filled))
    filled[first] += after[len(everywhere) :]
    needed = [load for load in after if load != Load()]  # any pod may have to hold these, so each is large enough
    return [_group(pool, pods, needed) for pool, pods in filled.items()]


def loads(config: Config, memory: Mapping[Kind, Footprint]) -> list[Load]:
    """What every bundle of the reinforcement-learning stage asks for, in the order of `cluster.roles.bundles`."""
    wanted = seats(config)
    host: dict[int, float] = {}
    for seat in wanted:
        host[seat.bundle] = host.get(seat.bundle, 0.0) + MARGIN * memory[seat.role].host
    return [
        Load(cpus=bundle["CPU"], gpus=(bundle.get("GPU", 0.0),), memory_gib=host[i])
        for i, bundle in enumerate(bundles(wanted))
    ]


def retriever_loads(config: Config, memory: Mapping[Kind, Footprint]) -> list[Load]:
    """Of the retriever's ranks. Without GPUs the one to compare trains at the same time (jobs/train_retriever.py)."""
    one = Load(cpus=RETRIEVER_CPUS, gpus=(gpus("learner", config),), memory_gib=MARGIN * memory["retriever"].host)
    return [one] * retriever_ranks(config)


def pack(wanted: list[Load], node: Node, pods: list[Load] | None = None) -> list[Load]:
    """What every pod holds, the largest bundle first, each into the first pod with room; new pods as needed.

    Ray places bundles in much the same order. Raises UserError for a bundle larger than a node.
    """
    filled = list(pods or [])
    for load in sorted(wanted, key=lambda one: (-sum(one.gpus), -one.cpus, -one.memory_gib)):
        if not load.within(node):
            raise UserError(
                f"one bundle needs {load.cpus:g} CPUs, {load.devices} GPUs and"
                f" {load.memory_gib + NODE_GIB + OBJECT_STORE_GIB:.1f} GiB, and a node has {node.cpus:g}, {node.gpus}"
                f" and {node.memory_gib:g}: give larger nodes (--cpus, --gpus, --memory), or lower the actor's cpus"
            )
        place = next((i for i, pod in enumerate(filled) if pod.plus(load).within(node)), None)
        if place is None:
            filled.append(load)
        else:
            filled[place] = filled[place].plus(load)
    return filled


def head_memory_gib(memory: Mapping[Kind, Footprint]) -> int:
    """Of the head's pod: the control plane and the driver."""
    return math.ceil(MARGIN * memory["driver"].host + 2 * NODE_GIB + OBJECT_STORE_GIB)


def _group(pool: str | None, pods: list[Load], needed: list[Load]) -> Group:
    every = [*pods, *needed]
    return Group(
        pool=pool,
        replicas=len(pods),
        cpus=max(1, math.ceil(max(pod.cpus for pod in every))),
        gpus=max(pod.devices for pod in every),
        memory_gib=math.ceil(max(pod.memory_gib for pod in every) + NODE_GIB + OBJECT_STORE_GIB),
    )
