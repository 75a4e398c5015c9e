"""Where a server of R4T listens."""

from __future__ import annotations

import socket

from r4t.errors import UserError


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises UserError where that cannot be."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot listen on {host}:{port} ({error}): give another --port (0: any free one) or --host"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether nothing outside this machine reaches `host`."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def shown(host: str) -> str:
    """`host` as a URL writes it."""
    return f"[{host}]" if ":" in host else host
