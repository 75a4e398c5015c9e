"""Starts DeepSpeed process groups whose ranks are Ray actors, and waits for remote calls with a limit."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from cluster.clock import CLOCK, check_clock
from cluster.devices import collective_backend, role_environment
from cluster.ports import free_port
from cluster.roles import Placement
from r4t.config import Config
from r4t.errors import UserError
from r4t.lean_imports import lean_imports
from r4t.seats import Seat

LOOK = 10.0  # seconds of waiting after which the own node is looked at
GRACE = 10.0  # seconds in which a dead rank must show after its neighbours failed
LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.OutOfMemoryError,  # Ray killed the actor because its node ran out of memory
    ray.exceptions.ObjectLostError,
    ray.exceptions.ActorPlacementGroupRemoved,
)


MEETING = "the node of rank 0"


@ray.remote(num_cpus=0)
def _address() -> tuple[str, int, str]:
    return ray.util.get_node_ip_address(), free_port(), ray.get_runtime_context().get_node_id()


def launch_group(
    worker: type, config: Config, *args: Any, ranks: int, placement: Placement | None = None, cpus: float = 0.5
) -> list[Any]:
    """Starts `ranks` actors of the plain class `worker(rank, world, config, *args)`.

    With a placement the actors sit on its learner seats; without, each takes `cpus` CPUs anywhere.
    """
    learner_seats: Sequence[Seat | None] = placement.of("learner") if placement else [None] * ranks
    alone: dict[str, Any] = {"num_cpus": cpus, "num_gpus": _gpus(config)}
    address, port, first = (
        _meeting_point(placement, learner_seats[0], alone, config)
        if ranks > 1
        else ("127.0.0.1", free_port("127.0.0.1"), {})
    )
    env = role_environment("learner", config)
    actors: list[Any] = []
    for rank, seat in enumerate(learner_seats):
        own = env | {
            "RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "LOCAL_RANK": "0",  # Ray narrows the visible devices of each actor to its own
            "MASTER_ADDR": address,
            "MASTER_PORT": str(port),
        }
        options = (
            placement.options(seat, own)
            if placement and seat
            else alone | {"runtime_env": {"env_vars": own}} | (first if rank == 0 else {})
        )
        actors.append(ray.remote(worker).options(**options).remote(rank, ranks, config, *args))
    return actors


def _meeting_point(
    placement: Placement | None, seat: Seat | None, alone: dict[str, Any], config: Config
) -> tuple[str, int, dict[str, Any]]:
    """Address and free port of the node that rank 0 will sit on, for it opens the store that all ranks meet at.

    Also the options that keep rank 0 there where no placement does.
    """
    if placement and seat and sum(node["Alive"] for node in ray.nodes()) == 1:
        return ray.util.get_node_ip_address(), free_port(), {}  # this very node: no process need be started to ask
    if placement and seat:
        where = PlacementGroupSchedulingStrategy(placement.group, placement_group_bundle_index=seat.bundle)
        ((address, port, _),) = gather([_address.options(scheduling_strategy=where).remote()], config, MEETING)
        return address, port, {}
    ((address, port, node),) = gather([_address.options(**alone).remote()], config, MEETING)
    return address, port, {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


class ActorsLost(RuntimeError):
    """Actors that died, or that did not answer in time: what `cluster.watch` starts again."""

    def __init__(self, who: str, missing: Sequence[int], total: int, why: str, argument: bool = False) -> None:
        super().__init__(f"{who} {list(missing)} of {total} {why}")
        self.who, self.missing, self.why = who, tuple(missing), why
        self.argument = argument
        """The actor lives; the result of another actor, which it was given, is lost."""


def gather(calls: Sequence[Any], config: Config, who: str) -> list[Any]:
    """Results of remote calls to the actors called `who`, one call each, in their order.

    Raises ActorsLost, with the indices of the calls, as soon as one actor is dead, or when some have not answered
    within `cluster.call_timeout`, NodeEndedError where the caller's own node has, and ClockWentBackError where that is
    why none answers. What an actor itself raised is raised here once the others had a moment: the ranks beside a dead
    one fail too, with an error that does not name it.
    """
    limit = config.cluster.call_timeout
    deadline = time.monotonic() + limit
    results: dict[Any, Any] = {}
    failure: Exception | None = None
    waiting = list(calls)
    while waiting:
        CLOCK.behind()
        left = max(0.0, deadline - time.monotonic())
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=min(left, LOOK))
        if not ready and left <= LOOK:
            break
        if not ready:
            check_own_node()
            continue
        try:
            results[ready[0]] = ray.get(ready[0])
        except LOST as error:
            if getattr(error, "actor_init_failed", False):
                raise  # its constructor raised: a mistake or a bug, which a restart would only repeat
            argument = isinstance(error, ray.exceptions.RayTaskError)
            why = "lost its input" if argument else f"died ({type(error).__name__})"
            raise ActorsLost(who, [calls.index(ready[0])], len(calls), why, argument) from error
        except Exception as error:
            failure = failure or error
            deadline = min(deadline, time.monotonic() + GRACE)
    if failure is not None:
        raise failure
    if waiting:
        check_clock()
        late = [i for i, call in enumerate(calls) if call not in results]
        raise ActorsLost(who, late, len(calls), f"did not answer within {limit:g} s (cluster.call_timeout)")
    return [results[call] for call in calls]


class NodeEndedError(UserError):
    """The Ray node of this process is gone."""


def check_own_node() -> None:
    """Raises NodeEndedError where the node of this process has: no actor is started for it, or answers it, again."""
    own = ray.get_runtime_context().get_node_id()
    if any(node["NodeID"] == own and not node["Alive"] for node in ray.nodes()):
        raise NodeEndedError(
            "the Ray node that this command runs on has ended (its raylet died, for lack of memory perhaps): run the"
            " same command again, it goes on from what is written"
        )


def start_deepspeed(config: Config) -> Any:
    """Imports DeepSpeed and joins the process group described by the environment. Returns the module."""
    with lean_imports():
        import deepspeed
    import torch.distributed as dist

    # The shared-memory collective is compiled at first use (over a minute) and gains nothing at these sizes.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not dist.is_initialized():
        dist.init_process_group(
            collective_backend(config), rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"])
        )
    deepspeed.init_distributed(dist_backend=collective_backend(config), verbose=False)
    return deepspeed


def _gpus(config: Config) -> float:
    from r4t.seats import gpus

    return gpus("learner", config)
