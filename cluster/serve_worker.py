"""What every process of a Ray session that serves does first."""

from __future__ import annotations

from ray._private import ray_constants

from cluster.node_worker import end_with_node
from cluster.serve_protobuf import mend

HOOK = "cluster.serve_worker.prepare"
# Names HOOK in the environment of a node, where Ray itself starts Serve and no driver has a say, as with a RayService.
NODE_VARIABLE = ray_constants.WORKER_PROCESS_SETUP_HOOK_ENV_VAR


def prepare() -> None:
    """Ends with its node, mends Serve's configuration on protobuf 7, and has its proxies close connections whose
    requests never arrive."""
    end_with_node()
    mend()
    from uvicorn.config import HTTP_PROTOCOLS

    HTTP_PROTOCOLS["auto"] = "cluster.serve_proxy:Patient"  # loaded by the one process of each node that is a proxy
