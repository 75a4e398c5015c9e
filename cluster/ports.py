"""Ports for servers that come up seconds after their port was chosen."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

RANGE = (20_000, 32_768)  # above those of Ray's workers, below those that Linux gives to whoever asks for any
_random = random.SystemRandom()  # whatever a run seeds


def free_port(host: str = "") -> int:
    """A port of `host` (default: of all addresses) that nobody holds, and that nobody is given who does not name it."""
    while True:
        port = _random.randrange(*RANGE)
        with suppress(OSError), socket.socket() as probe:
            probe.bind((host, port))
            return port
