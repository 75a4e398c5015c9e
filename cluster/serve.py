"""The endpoint on Ray Serve: replicas of `r4t.serving`, each an HTTP application of its own that watches for versions.

`build` is the application builder, for `r4t serve` and for a RayService (`import_path: cluster.serve:build`).
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ray import serve
from starlette.applications import Starlette

from r4t.config import Serve
from r4t.errors import UserError
from r4t.serving.watched import watched_app

IMPORT_PATH = "cluster.serve:build"
NAME = "r4t"
SPARE = 10.0  # seconds that Ray's proxy waits beyond what the application may take


def build(args: dict[str, Any]) -> serve.Application:
    """The application. args: `folders`, exported folders with the main retriever first, and `serve`, keys of that
    section. Raises UserError for others."""
    try:
        settings = Serve.model_validate(args.get("serve", {}))
        folders = [Path(folder) for folder in args["folders"]]
    except (KeyError, TypeError, ValidationError) as error:
        raise UserError(f"the endpoint needs folders, and may have keys of section serve: {error}") from None

    def replica() -> Starlette:
        return replica_app(folders, settings)

    deployment: Any = serve.deployment(serve.ingress(replica)(), name=NAME, **deployment_options(settings))
    application: serve.Application = deployment.bind()
    return application


def replica_app(folders: Sequence[Path], settings: Serve) -> Starlette:
    """What runs in a replica."""
    if settings.engine == "torch":
        import torch

        torch.set_num_threads(settings.threads)

    return watched_app(folders, settings, settings.engine, folders[0])[0]


def deployment_options(settings: Serve) -> dict[str, Any]:
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
    return scaling | {
        "max_ongoing_requests": 2 * settings.max_waiting,
        "max_queued_requests": settings.max_waiting,
        "graceful_shutdown_timeout_s": settings.drain,
        "graceful_shutdown_wait_loop_s": 0.5,
        "ray_actor_options": {"num_cpus": settings.replica_cpus},
    }


def run(folders: Sequence[Path], settings: Serve, host: str, port: int, ready: Callable[[], None]) -> None:
    """Deploys into the Ray session of this process and serves until SIGTERM or SIGINT, then drains."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    longest = settings.timeout + settings.body_timeout + SPARE
    with contextlib.suppress(TimeoutError):  # Ray gives its proxies a minute; on a busy machine they come up later
        serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port, "request_timeout_s": longest})
    try:
        serve.run(build({"folders": [str(one) for one in folders], "serve": settings.model_dump()}), name=NAME)
        ready()
        while not stopped.wait(1.0):
            pass
        serve.delete(NAME)  # replicas finish what they have while the proxies still stand; a shutdown ends both at once
    finally:
        serve.shutdown()
