"""Nodes that were told to go: a spot instance's notice, `ray drain-node`, an operator that scales down.

Ray tells of a draining node as soon as it knows; its actors work on until the node is gone. Whoever holds state there
writes it down meanwhile. What holds none (rollout workers, scorers) just starts elsewhere afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray

from cluster.launch import LOST

PATIENCE = 60.0  # seconds for actors that already answered to say where they are


class Notices:
    """Watches the nodes that `actors` sit on. Asks them once, so make it anew when they are replaced.

    An actor that is dead by then has no node to leave; whoever asks it next learns of its death.
    """

    def __init__(self, actors: Sequence[Any]) -> None:
        calls = [actor.__ray_call__.remote(_node) for actor in actors]
        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=PATIENCE)
        self.nodes = frozenset(found for call in ready if (found := _answer(call)))

    def leaving(self) -> str:
        """Empty, or which of the nodes are draining and how long they have."""
        told = ray._private.state.state.get_draining_nodes()
        addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()} if told else {}
        return ", ".join(
            f"node {addresses.get(node, node)} is draining" + _left(deadline)
            for node, deadline in sorted(told.items())
            if node in self.nodes
        )


def _answer(call: Any) -> str:
    try:
        return str(ray.get(call))
    except LOST:
        return ""


def _node(_: Any) -> str:
    return str(ray.get_runtime_context().get_node_id())


def _left(deadline: int) -> str:
    """deadline: milliseconds since 1970, or 0 for none."""
    return f" ({max(0.0, deadline / 1000 - time.time()):.0f} s left)" if deadline else ""
