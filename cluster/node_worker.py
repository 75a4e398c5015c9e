"""What every worker process of a local session does first: it makes sure that it ends with its node.

Ray's workers look for their raylet now and then, and leave when it is gone. One that stands still, or hangs as it
leaves, would stay for ever; the kernel ends it.
"""

from __future__ import annotations

import ctypes
import signal

HOOK = "cluster.node_worker.end_with_node"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_node() -> None:
    """Asks for SIGKILL when the parent, the raylet, ends. Raises OSError where the kernel refuses."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
