"""Starts DeepSpeed process groups whose ranks are Ray actors, and waits for remote calls with a limit."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

import ray

from cluster.devices import collective_backend, role_environment
from cluster.roles import Placement, Seat
from r4t.config import Config


@ray.remote(num_cpus=0)
def _address() -> tuple[str, int]:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return ray.util.get_node_ip_address(), probe.getsockname()[1]


def launch_group(
    worker: type, config: Config, *args: Any, ranks: int, placement: Placement | None = None, cpus: float = 0.5
) -> list[Any]:
    """Starts `ranks` actors of the plain class `worker(rank, world, config, *args)`.

    With a placement the actors sit on its learner seats; without, each takes `cpus` CPUs anywhere.
    """
    address, port = ("127.0.0.1", _free_port()) if ranks == 1 else ray.get(_address.remote())
    env = role_environment("learner", config)
    learner_seats: Sequence[Seat | None] = placement.of("learner") if placement else [None] * ranks
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
            else {"num_cpus": cpus, "num_gpus": _gpus(config), "runtime_env": {"env_vars": own}}
        )
        actors.append(ray.remote(worker).options(**options).remote(rank, ranks, config, *args))
    return actors


def gather(calls: Sequence[Any], config: Config, who: str) -> list[Any]:
    """Results of remote calls, or a TimeoutError that names how many of `who` did not answer in time."""
    _, missing = ray.wait(list(calls), num_returns=len(calls), timeout=config.cluster.call_timeout)
    if missing:
        late, limit = [i for i, call in enumerate(calls) if call in missing], config.cluster.call_timeout
        raise TimeoutError(f"{who} {late} of {len(calls)} did not answer within {limit:g} s (cluster.call_timeout)")
    return ray.get(list(calls))


def start_deepspeed(config: Config) -> Any:
    """Imports DeepSpeed and joins the process group described by the environment. Returns the module."""
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
    from cluster.devices import gpus

    return gpus("learner", config)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
