"""`r4t serve-reward`: the training reward over HTTP, for trainers on other nodes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import uvicorn

from jobs.listening import is_loopback, listen, shown
from r4t.interop.reward import open_reward
from r4t.interop.server import KEY_VARIABLE, reward_app
from r4t.interop.service import RewardService

GRACE = 30  # seconds that requests in flight have once the server is told to stop


def main(source: Path, run: Path | None, host: str, port: int) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what is being scored. Port 0 takes a free one.

    Raises UserError when the run is not ready or the port is taken.
    """
    listening = listen(host, port)
    with listening:
        service = RewardService(open_reward(source, run))
        key = os.environ.get(KEY_VARIABLE) or None
        app = reward_app(service, key)
        print(f"reward server: http://{shown(host)}:{listening.getsockname()[1]}/get_reward", flush=True)
        if key is None and not is_loopback(host):
            print(f"warning: whoever reaches {host} can use it; set {KEY_VARIABLE} to ask for a key", flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)  # uvicorn stops on them, then raises them again at what stood before
        server.run(sockets=[listening])
        print(f"reward server: stopped; {service.stats()}", flush=True)
