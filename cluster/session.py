"""The Ray session of a run: its own local one, or a cluster that is already up."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

from cluster.devices import role_environment
from cluster.local_ray import start_local
from cluster.node_checks import SILENT, examine_nodes
from cluster.node_worker import HOOK
from cluster.roles import place
from r4t.config import Config
from r4t.errors import UserError

ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray must not clear the visible devices that roles set themselves
    "RAY_prestart_worker_first_driver": "0",  # actors bring environments of their own, for which those would not do
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of calls that were sent again after their actor died; `gather` says so itself
    "RAY_DATA_AUTOSCALING_COORDINATOR_MAX_CONSECUTIVE_FAILURES": "1000",  # else a busy machine ends a job in a minute
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


@contextmanager
def session(config: Config, address: str | None = None, storage: Path | None = None) -> Iterator[None]:
    """Connects to Ray for the length of the block.

    `address`: "local" starts a session of this process's own; "auto" joins the running cluster; None joins the one in
    RAY_ADDRESS (as `ray job submit` sets it), else starts a local one. A local session ends with this process, however
    it ends, so a killed run leaves nothing in the way of the next. With `storage`, where the run will be written, the
    nodes of a cluster of several are asked first (`check_nodes`). Raises UserError when no cluster answers, when the
    cluster cannot seat every actor of the run, and for nodes that cannot take part.
    """
    if accelerator := role_environment("scorer", config).get("DS_ACCELERATOR"):
        os.environ["DS_ACCELERATOR"] = accelerator  # transformers imports DeepSpeed here too, which else warns
    start(address)
    try:
        place(config).release()
        if storage is not None:
            check_nodes(storage)
        yield
    except UserError:
        raise
    except Exception as error:
        error.add_note(f"The actors' own output is in {log_folder()}")
        raise
    finally:
        ray.shutdown()


def check_nodes(storage: Path) -> None:
    """Raises UserError that names every node which cannot take part in a run in `storage`, with the fixes.

    One that does not answer in time may just be busy: `r4t doctor --address` says so, a run goes on.
    """
    if sum(node["Alive"] for node in ray.nodes()) < 2:
        return
    problems = [(what, fix) for what, fix in examine_nodes(storage) if not what.endswith(SILENT)]
    if problems:
        lines = "\n".join(f"  {what}: {fix}" for what, fix in problems)
        raise UserError(f"not every node of the cluster can take part in this run:\n{lines}")


def start(address: str | None = None, hook: str | None = None) -> None:
    """Connects without checking the seats; `session` is what runs use. hook: a function that every process of the
    session calls first, as `module.function`."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    extra: dict[str, Any] = {"runtime_env": {"worker_process_setup_hook": hook}} if hook else {}
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    with _own_handler():
        if where == "local":
            os.environ.setdefault(WORKER_PROCESS_SETUP_HOOK_ENV_VAR, HOOK)
            start_local(extra)
        else:
            _join(where, extra)


def _join(where: str, extra: dict[str, Any]) -> None:
    try:
        _knock(where)
        ray.init(address=where, logging_level=logging.ERROR, log_to_driver=False, **extra)
    except RuntimeError as error:
        if "ersion mismatch" not in str(error):
            raise _no_cluster(where, error) from error
        raise UserError(
            f"the cluster at '{where}' runs other versions than this process: {' '.join(str(error).split())}"
            " Submit from the image that its nodes run, or install R4T's lock on every node"
        ) from error
    except (OSError, ValueError) as error:
        raise _no_cluster(where, error) from error


@contextmanager
def _own_handler() -> Iterator[None]:
    """Keeps the process's handler of SIGTERM, where it has one, while Ray starts.

    Ray puts those in its place that leave with 1 or 15 and say nothing, and one of C++, of which Python does not know,
    that aborts: hence the handler is set again.
    """
    own, replace = signal.getsignal(signal.SIGTERM), ray._private.utils.set_sigterm_handler
    if own in (None, signal.SIG_DFL) or threading.current_thread() is not threading.main_thread():
        yield
        return
    ray._private.utils.set_sigterm_handler = lambda _: None
    try:
        yield
    finally:
        ray._private.utils.set_sigterm_handler = replace
        signal.signal(signal.SIGTERM, own)


def _no_cluster(where: str, error: Exception) -> UserError:
    return UserError(
        f"no Ray cluster answers at '{where}' ({type(error).__name__}): start one with `ray start --head`,"
        " give its address with --address HOST:PORT, or use --address local"
    )


def _knock(where: str) -> None:
    """Raises OSError at once where nothing listens; Ray itself would wait for over a minute."""
    host, _, port = where.rpartition(":")
    if host and "/" not in host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def log_folder() -> str:
    """Where this node's processes write what they say."""
    node = ray._private.worker._global_node
    return node.get_logs_dir_path() if node else "the logs folder of the Ray session, on every node"
