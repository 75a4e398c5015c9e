"""What every worker process of a local session does first: it makes sure that it ends with its node, and at once.

Ray's workers look for their raylet now and then, and leave when it is gone. One that stands still, or hangs as it
leaves, would stay for ever; the kernel ends it.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import signal
import sys

import ray

HOOK = "cluster.node_worker.prepare"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def prepare() -> None:
    """What Ray calls in each worker process, before it takes any work."""
    end_with_node()
    leave_at_once()


def end_with_node() -> None:
    """Asks for SIGKILL when the parent, the raylet, ends. Raises OSError where the kernel refuses."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def leave_at_once() -> None:
    """Has the process end as soon as Ray and what `atexit` is given from now on are done.

    Python would then take all that was imported to pieces, for seconds in an engine's process, while those of the next
    stage want the cores to start.
    """
    atexit.register(_leave)


def _leave() -> None:
    ray.shutdown(_exiting_interpreter=True)  # Ray gave this to `atexit` before, so it would come after
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
