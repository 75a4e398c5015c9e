"""The endpoint on Ray Serve: replicas of `r4t.serving`, each an HTTP application of its own that watches for versions.

`build` is the application builder, for `r4t serve` and for a RayService (`import_path: cluster.serve:build`).
"""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from pydantic import ValidationError
from ray import serve
from starlette.applications import Starlette

from cluster.launch import NodeEndedError
from cluster.serve_watch import watch_proxies
from cluster.session import log_folder
from cluster.writer import open_writer, writer_options
from r4t.config import Serve
from r4t.errors import UserError
from r4t.serving.watched import watched_app

log = logging.getLogger(__name__)
IMPORT_PATH = "cluster.serve:build"
NAME = "r4t"
DIGEST = re.compile("[0-9a-f]{64}")
QUEUED = 16  # times max_waiting: requests that Ray's proxy holds; what it turns away itself gets a bare 503
PATIENCE = 30.0  # seconds between two words on what an endpoint that does not come up waits for
HEALTH = {"health_check_period_s": 5.0, "health_check_timeout_s": 15.0}  # three in vain, and another replica comes
SPARE = 10.0  # seconds that Ray's proxy waits beyond what the application may take


def build(args: dict[str, Any]) -> serve.Application:
    """The application. args: `folders`, exported folders with the main retriever first; `serve`, keys of that section;
    `run`, whose language model answers where serve.folm is set, and which the explorer's page is about; `key_digest`,
    of the key that every replica asks for, in place of its own environment's. Raises UserError for others."""
    try:
        settings = Serve.model_validate(args.get("serve", {}))
        folders = [Path(folder) for folder in args["folders"]]
        source = Path(args.get("run") or folders[0])
    except (IndexError, KeyError, TypeError, ValidationError) as error:
        raise UserError(f"the endpoint needs folders, and may have keys of section serve: {error}") from None
    if settings.folm and "run" not in args:
        raise UserError("serve.folm needs `run` among the endpoint's args: the folder whose language model is loaded")
    run = Path(args["run"]) if settings.folm else None
    digest = args.get("key_digest")  # never the key: Ray shows what an application was declared with
    if digest is not None and not (isinstance(digest, str) and DIGEST.fullmatch(digest)):
        raise UserError("key_digest is the SHA-256 of the key as 64 hexadecimal digits, not the key itself")

    def replica() -> Starlette:
        return replica_app(folders, settings, source, run, digest)

    options = deployment_options(settings, run)
    deployment: Any = serve.deployment(serve.ingress(replica)(), name=NAME, **options)
    application: serve.Application = deployment.bind()
    return application


def replica_app(
    folders: Sequence[Path], settings: Serve, source: Path, run: Path | None = None, digest: str | None = None
) -> Starlette:
    """What runs in a replica. source and digest as in `watched_app`; run: whose language model it loads."""
    if settings.engine == "torch":
        import torch

        torch.set_num_threads(settings.threads)

    writer = open_writer(run) if run else None
    return watched_app(folders, settings, settings.engine, source, writer, digest)[0]


def deployment_options(settings: Serve, run: Path | None = None) -> dict[str, Any]:
    """Replicas, autoscaling and bounds as Ray Serve names them.

    The application turns away what exceeds `max_waiting` itself, with 429; Ray's own bounds lie above and only keep
    memory in check.
    """
    scaling: dict[str, Any] = {"num_replicas": settings.replicas}
    if settings.max_replicas is not None:
        scaling = {
            "autoscaling_config": {
                "min_replicas": settings.replicas,
                "max_replicas": settings.max_replicas,
                "target_ongoing_requests": settings.target_ongoing,
            }
        }
    actor: dict[str, Any] = {"num_cpus": settings.replica_cpus}
    if run is not None:
        actor |= writer_options(run)
    return (
        scaling
        | HEALTH
        | {
            "max_ongoing_requests": 2 * settings.max_waiting,
            "max_queued_requests": QUEUED * settings.max_waiting,
            "graceful_shutdown_timeout_s": settings.drain,
            "graceful_shutdown_wait_loop_s": 0.5,
            "ray_actor_options": actor,
        }
    )


def run(args: dict[str, Any], host: str, port: int, ready: Callable[[], None]) -> None:
    """Deploys what `build` makes of args into the Ray session of this process and serves until SIGTERM or SIGINT, then
    drains. Raises UserError for an application that cannot start, and where the cluster serves others already."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    _check_alone()
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # it warns that `run_many` does not move what `start` placed
    settings = Serve.model_validate(args["serve"])
    longest = settings.timeout + settings.body_timeout + SPARE
    application = build(args)
    try:
        with contextlib.suppress(TimeoutError):  # Ray gives its proxies a minute; on a busy machine they come up later
            options = {"host": host, "port": port, "request_timeout_s": longest}
            serve.start(proxy_location="HeadOnly", http_options=options)
        serve.run_many([serve.RunTarget(application, NAME)], wait_for_applications_running=False)
        if _deployed(stopped, settings):
            ready()
            watch_proxies(stopped)
        _drain(settings.drain)
    finally:
        ended = isinstance(sys.exception(), NodeEndedError)  # and with the node all that could be shut down
        if not ended and not set(serve.status().applications) - {NAME}:
            serve.shutdown()


def _drain(longest: float) -> None:
    """Replicas finish what they have while the proxies still stand; a shutdown would end both at once."""
    until = time.monotonic() + longest
    log.warning("stopping: replicas have %g s (serve.drain) for what they admitted", longest)
    while True:
        try:
            return serve.delete(NAME)
        except TimeoutError:  # Ray waits a minute
            if time.monotonic() > until:
                return log.warning("the replicas have not ended in %.0f s", longest)


def _check_alone() -> None:
    """Raises UserError where Ray Serve has applications: its proxies keep the port and the bounds they came up with."""
    if others := sorted(serve.status().applications):
        raise UserError(
            f"Ray Serve already runs on this cluster, with {', '.join(others)}: end it with `serve shutdown`, or add "
            f"R4T to it with `serve deploy` and import_path {IMPORT_PATH}"
        )


def _deployed(stopped: threading.Event, settings: Serve) -> bool:
    """Waits until the application answers; False where `stopped` came first. Says what is missing while it waits."""
    said = time.monotonic()
    while not stopped.wait(0.2):
        application = serve.status().applications.get(NAME)
        if application is None:
            continue
        if application.status == "RUNNING":
            return True
        reason = "\n".join([application.message, *(one.message for one in application.deployments.values())]).strip()
        if application.status == "DEPLOY_FAILED":
            raise UserError(
                f"the endpoint did not start: {_last_line(reason)}"
                f" (the replicas' own output is in {log_folder()}/serve)"
            )
        if time.monotonic() - said > PATIENCE:
            said = time.monotonic()
            free = f"a replica needs {settings.replica_cpus:g} CPUs (serve.replica_cpus), {_free_cpus():g} are free"
            log.warning("the endpoint is not up yet: %s. %s", free, " ".join(reason.split()))
    return False


def _last_line(message: str) -> str:
    """Of a traceback what went wrong; of a mistake that R4T names the text alone."""
    return message.rpartition("\n")[2].removeprefix(f"{UserError.__module__}.{UserError.__qualname__}: ")


def _free_cpus() -> float:
    return float(ray.available_resources().get("CPU", 0.0))
