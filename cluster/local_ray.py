"""A Ray session of this process's own: its raylet, without what serves clusters alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private.node import Node

from cluster.devices import cores
from r4t.errors import UserError

OBJECT_STORE_BYTES = 1 << 30  # a local run passes batches and small tables; Ray's default is a third of the memory
SERVICES = ("start_monitor", "start_api_server", "start_log_monitor")


def start_local(extra: dict[str, Any]) -> None:
    """Starts Ray and connects. extra: further arguments of `ray.init`. Raises UserError where it does not come up."""
    try:
        with _without_services():
            ray.init(
                address="local",
                num_cpus=cores(),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                logging_level=logging.ERROR,
                log_to_driver=False,
                **extra,
            )
    except Exception as error:
        if "timed out during startup" not in str(error):  # Ray raises a bare Exception
            raise
        raise UserError(
            f"Ray's own processes did not start within the 30 s that it gives them (load {os.getloadavg()[0]:.0f} on"
            f" {cores()} cores): repeat the command when this machine has less to do"
        ) from error


@contextmanager
def _without_services() -> Iterator[None]:
    """Has Ray start, in the block, without the monitor of its autoscaler, the server behind dashboard and job API, and
    the process that sends log files to drivers.

    A run of one's own asks none of them, the second listens on a port even where the dashboard is off, and each is a
    Python process for which the start waits.
    """
    kept = {name: getattr(Node, name) for name in SERVICES}
    asks = ray._private.utils.get_dashboard_dependency_error
    for name in SERVICES:
        setattr(Node, name, lambda *_, **__: None)
    ray._private.utils.get_dashboard_dependency_error = lambda: None  # it would import them here; R4T requires them
    try:
        yield
    finally:
        ray._private.utils.get_dashboard_dependency_error = asks
        for name, method in kept.items():
            setattr(Node, name, method)
