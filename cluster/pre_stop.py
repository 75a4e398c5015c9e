"""What a pod of cluster/kuberay does before it is ended: `python -m cluster.pre_stop worker|head --seconds N`.

Kubernetes sends SIGTERM to `ray start` alone, which ends its processes at once. So a worker first tells Ray that its
node goes: nothing new is placed there, and the driver writes checkpoints (cluster/preemption.py). The head first sends
its drivers the SIGTERM after which they write one.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil

ADDRESS = "RAY_ADDRESS"  # these two are set by KubeRay in every pod
INSTANCE = "RAY_CLOUD_INSTANCE_ID"
MARK = "r4t-stopping"  # the process name of a driver that has its SIGTERM: a second one would end it at once
REACH = 5.0  # seconds for the control plane to answer
PAUSE = 0.5


class NotPossible(Exception):
    """The message says why nothing was told or sent."""


def worker(seconds: float, say: Callable[[str], None] = print) -> None:
    """Drains this pod's node, and waits until nothing runs there or the time is up.

    Ray ends a draining node itself once it is idle. Raises NotPossible without a control plane or a node to drain.
    """
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]

    end = _end(seconds)
    gcs = _control_plane(os.environ)
    node = _own_node(gcs, os.environ)
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = gcs.drain_node(node.hex(), reason, "the pod is ended", int(end * 1000))
    if not accepted:
        raise NotPossible(f"node {node.hex()} is not drained: {why}")
    say(f"node {node.hex()} is draining")
    while time.time() < end:
        (alive,) = gcs.check_alive([node], timeout=REACH)
        if not alive:
            return
        time.sleep(PAUSE)


def head(seconds: float, say: Callable[[str], None] = print) -> None:
    """Sends SIGTERM to every driver on this node that has none yet, and waits until they have gone or the time is up.

    The job is not stopped through Ray: to KubeRay a stopped job is complete, and only a failed one is tried again.
    """
    end = _end(seconds)
    drivers = _drivers(_control_plane(os.environ))
    for driver in drivers:
        try:
            if driver.name() != MARK:
                driver.send_signal(signal.SIGTERM)
                say(f"driver {driver.pid} is told to stop")
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(drivers, timeout=max(0.0, end - time.time()))


def _end(seconds: float) -> float:
    """When the time is up: Kubernetes' clock began before this process did."""
    return float(psutil.Process().create_time()) + seconds


def _control_plane(env: Mapping[str, str]) -> Any:
    """A client of Ray's control plane, where one listens: the client itself would try for a minute."""
    address = env.get(ADDRESS, "")
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=REACH).close()
    except (OSError, ValueError) as error:
        raise NotPossible(f"no control plane at {ADDRESS}={address}: {error}") from None
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    return GcsClient(address=address)


def _own_node(gcs: Any, env: Mapping[str, str]) -> Any:
    """The id of the living node that was started in this pod."""
    from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]

    instance = env.get(INSTANCE, "")
    nodes = gcs.get_all_node_info(timeout=REACH, state_filter=GcsNodeInfo.GcsNodeState.ALIVE)
    for node, found in nodes.items():
        if instance and found.instance_id == instance:
            return node
    raise NotPossible(f"no living node was started with {INSTANCE}={instance}")


def _drivers(gcs: Any) -> list[psutil.Process]:
    """Drivers on the head's node, Ray's own excepted."""
    from ray._raylet import RAY_INTERNAL_NAMESPACE_PREFIX  # type: ignore[attr-defined]

    nodes = gcs.get_all_node_info(timeout=REACH).values()
    here = {node.node_manager_address for node in nodes if node.is_head_node}
    jobs = gcs.get_all_job_info(
        skip_submission_job_info_field=True, skip_is_running_tasks_field=True, timeout=REACH
    ).values()
    found = []
    for job in jobs:
        own = job.config.ray_namespace.startswith(RAY_INTERNAL_NAMESPACE_PREFIX)
        if not job.is_dead and not own and job.driver_ip_address in here and psutil.pid_exists(job.driver_pid):
            found.append(psutil.Process(job.driver_pid))
    return found


def main() -> None:
    """The command line. Exit code 1 becomes an event of the pod, FailedPreStopHook; the pod is ended all the same."""
    parser = argparse.ArgumentParser(prog="python -m cluster.pre_stop", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kind", choices=("worker", "head"))
    parser.add_argument("--seconds", type=float, required=True, help="Less than the pod's grace period.")
    given = parser.parse_args()
    try:
        {"worker": worker, "head": head}[given.kind](given.seconds)
    except NotPossible as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
