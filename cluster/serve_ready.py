"""Whether this pod of a RayService may get traffic: `python -m cluster.serve_ready`, its readiness probe.

KubeRay asks for Serve's proxy only on workers whose probe it writes itself. The standard library suffices, as this runs
every few seconds in an image without wget.
"""

from __future__ import annotations

import sys
from http.client import HTTPConnection, HTTPException

AGENT, PROXY = 52365, 8000  # ports of Ray's agent and of http_options
PATIENCE = 2.0  # seconds


def problem(agent: int = AGENT, proxy: int = PROXY) -> str:
    """Empty, or what does not answer as it should: the raylet, or a proxy that is up and not draining."""
    for what, port, path in (("raylet", agent, "/api/local_raylet_healthz"), ("proxy", proxy, "/-/healthz")):
        connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            if (status := connection.getresponse().status) != 200:
                return f"{what}: {status}"
        except (OSError, HTTPException) as error:
            return f"{what}: {error}"
        finally:
            connection.close()
    return ""


if __name__ == "__main__":
    sys.exit(problem() or None)
