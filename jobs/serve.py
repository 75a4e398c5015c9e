"""`r4t serve`: the endpoint on Ray Serve, or in this process with neither torch nor Ray."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import uvicorn

from jobs.listening import is_loopback, listen, shown
from jobs.serving_folder import lite_engine, serve_settings, served_folders
from r4t.config import Serve
from r4t.errors import UserError
from r4t.http import own_digest
from r4t.serving.draining import DrainingServer
from r4t.serving.encoders import check_encoder
from r4t.serving.lineage import policy_lineage, with_writer
from r4t.serving.messages import KEY_VARIABLE
from r4t.serving.methods import Writer
from r4t.serving.patience import patient_protocol
from r4t.serving.version import open_version
from r4t.serving.watched import watched_app
from r4t.verify import verify

KEPT_ALIVE = 75  # seconds, longer than clients keep theirs: who closes first must not be who is asked


def serve_lite(source: Path, host: str, port: int, overrides: list[str] | None = None) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what was admitted. Port 0 takes a free one.

    Raises UserError for a folder that cannot be served and a port that is taken.
    """
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("r4t").setLevel(logging.INFO)
    settings = serve_settings(source, overrides).serve
    engine = lite_engine(settings)
    folders = served_folders(source, engine)
    check_encoder(folders[0], settings.encoder_path)  # a mistake shows before the port is open
    writer = _writer(source) if settings.folm else None
    with listen(host, port) as listening:
        app, service = watched_app(folders, settings, engine, source, writer)
        announce(host, listening.getsockname()[1], service.version.lineage, os.environ.get(KEY_VARIABLE))
        server = DrainingServer(server_config(app, settings), service)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)  # uvicorn stops on them, then raises them again at what stood before
        server.run(sockets=[listening])
        print("r4t serve: stopped", flush=True)


def serve_on_ray(
    source: Path, host: str, port: int, overrides: list[str] | None = None, address: str | None = None
) -> None:
    """Serves with the replicas of the configuration until SIGTERM or SIGINT, then drains.

    Raises UserError for a folder that cannot be served, a port that is taken, and where no cluster answers.
    """
    settings = serve_settings(source, overrides).serve
    folders = [folder.resolve() for folder in served_folders(source, settings.engine)]
    path = settings.encoder_path
    lineage = open_version(folders, settings.engine, settings.threads, encoder_path=path).lineage  # here mistakes show
    if settings.folm:
        lineage = with_writer(lineage, _whole_policy(source))
    if not port:
        raise UserError("--port 0 works with --lite alone: give the port that Ray's proxies listen on")
    listen(host, port).close()
    import ray

    from cluster.serve import run
    from cluster.serve_worker import HOOK, prepare
    from cluster.session import start

    prepare()
    os.environ.setdefault("RAY_worker_niceness", "0")  # of a Ray started here: people wait for these workers
    start(address, HOOK)
    try:
        args = {
            "folders": [str(one) for one in folders],
            "serve": settings.model_dump(),
            "run": str(source.resolve()),
            "key_digest": own_digest(KEY_VARIABLE),  # the nodes of a running cluster have not this environment
        }
        run(args, host, port, lambda: announce(host, port, lineage, os.environ.get(KEY_VARIABLE)))
    finally:
        ray.shutdown()
    print("r4t serve: stopped", flush=True)


def _writer(run: Path) -> Writer:
    """The run's language model in this process, which with it needs torch."""
    _whole_policy(run)  # a mistake shows before torch is loaded
    from cluster.writer import open_writer

    return open_writer(run)


def _whole_policy(run: Path) -> str:
    """The lineage of a run's language model. Raises UserError where there is none, or not as it was written."""
    lineage = policy_lineage(run)
    if problems := verify(run / "folm"):
        raise UserError(
            "the language model is not as it was written:\n  " + "\n  ".join(problems) + "\n"
            "Restore what changed, or serve without --folm (serve.folm=false)"
        )
    return lineage


def server_config(app: object, settings: Serve) -> uvicorn.Config:
    """Of one process. h11 bounds the size of a request's head; bodies are bounded by the application."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=patient_protocol(settings.body_timeout),
        log_level="error",
        timeout_keep_alive=KEPT_ALIVE,
        timeout_graceful_shutdown=int(settings.drain),
        server_header=False,
    )


def announce(host: str, port: int, lineage: str, key: str | None) -> None:
    """Says where the endpoint is, and warns where it is open to other machines."""
    print(f"r4t serve: http://{shown(host)}:{port}  version {lineage}", flush=True)
    if not key and not is_loopback(host):
        print(f"warning: whoever reaches {host} can use it; set {KEY_VARIABLE} to ask for a key", flush=True)
