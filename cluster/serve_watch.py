"""Ends a proxy of Ray Serve that stands still: its controller only asks such a one to stop, which it cannot hear."""

from __future__ import annotations

import contextlib
import logging
import threading

import ray
from ray.exceptions import GetTimeoutError, RayError

from cluster.launch import check_own_node

log = logging.getLogger(__name__)
NAMESPACE, PREFIX = "serve", "SERVE_PROXY_ACTOR"
EVERY = 5.0  # seconds between two looks
SILENCE = 20.0  # seconds in which a proxy must answer


def watch_proxies(stopped: threading.Event, every: float = EVERY, silence: float = SILENCE) -> None:
    """Until `stopped`. The controller starts another proxy in the place of one that was ended.

    Raises NodeEndedError where the node of this process has ended.
    """
    while not stopped.wait(every):
        check_own_node()
        for proxy in _proxies():
            with contextlib.suppress(ValueError, RayError):  # one that has died is the controller's to replace
                _check(proxy, silence)


def _proxies() -> list[str]:
    named = ray.util.list_named_actors(all_namespaces=True)
    return [one["name"] for one in named if one["namespace"] == NAMESPACE and one["name"].startswith(PREFIX)]


def _check(name: str, silence: float) -> None:
    proxy = ray.get_actor(name, namespace=NAMESPACE)
    try:
        ray.get(proxy.__ray_ready__.remote(), timeout=silence)
    except GetTimeoutError:
        log.warning("%s has not answered for %g s: it is ended, another takes its place", name, silence)
        ray.kill(proxy)
