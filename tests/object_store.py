"""An S3 server of its own process on loopback, and a way to it that can be cut."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from support import needed, wait_for

from cluster.ports import free_port

SERVE = """
import sys, time
from moto.server import ThreadedMotoServer
ThreadedMotoServer(ip_address="127.0.0.1", port=int(sys.argv[1]), verbose=False).start()
time.sleep(float(sys.argv[2]))
"""
LIFE = 900  # seconds after which a server that nobody stopped ends
BUCKET = "runs"


def variables(port: int) -> dict[str, str]:
    """The environment in which s3:// means the server on that port."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "the-key",
        "AWS_SECRET_ACCESS_KEY": "the-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextlib.contextmanager
def s3_server(log: Path) -> Iterator[int]:
    """Serves an empty bucket `runs` for the length of the block. Yields the port."""
    needed("moto")
    needed("s3fs")
    port = free_port()
    with log.open("w") as output:
        server = subprocess.Popen([sys.executable, "-c", SERVE, str(port), str(LIFE)], stdout=output, stderr=output)
    try:
        wait_for("the S3 server", lambda: _answers(port), timeout=120)
        _make_bucket(port)
        yield port
    finally:
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _make_bucket(port: int) -> None:
    code = f"import fsspec; fsspec.filesystem('s3').mkdir({BUCKET!r})"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | variables(port))


class Way:
    """A forwarder to a port. While it is `cut`, its own port refuses, and what was open is closed."""

    def __init__(self, target: int) -> None:
        self.port, self._target = free_port(), target
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.mend()

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        assert self._listener is not None
        for end in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._open += [near, far]
            threading.Thread(target=_forward, args=(near, far), daemon=True).start()


def _forward(near: socket.socket, far: socket.socket) -> None:
    with near, far, contextlib.suppress(OSError, ValueError):
        while True:
            for end in select.select([near, far], [], [])[0]:
                part = end.recv(1 << 16)
                if not part:
                    return
                (far if end is near else near).sendall(part)
